"""A comparison of real trainings, killed in the middle, goes on without repeating what it has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.flows.conftest import Site, until


@pytest.mark.long
def test_a_killed_comparison_goes_on_without_repeating_what_it_has(training_site: Site) -> None:
    """A budget that is spent, a larger one whose flow is killed in its second round, and the same again."""
    site = training_site
    site.workspace.warm = True  # but for the flow that is killed
    params = site.workspace.params()
    params["models"]["short"] = {
        "like": "vp",
        "training": {"steps": 10, "warmup_steps": 10},
    }  # plainly another
    params["evaluation"]["sampling_seeds"] = [0, 1]  # of two nothing can be told at every look
    site.workspace.write_params(params)
    site.commit("a short training")

    def command(budget: str) -> list[str]:
        return ["-m", "flows.experiments", "compare", "vp", "short", "--train-seeds", "0",
                "--samplers", "heun", "--until-decided", "--budget", budget]  # fmt: skip

    said = site.python(*command("1s"))
    assert re.search(
        r"undecided: the next round, 1 × 4 trainings .* 0 s are left, after 1 rounds", said
    )
    state = site.workspace.root / ".scoremodel/state"
    old = {path: path.stat().st_mtime_ns for path in state.glob("samples-*/seed-*.safetensors")}
    assert {path.name[:7] for path in old} == {"seed-0-", "seed-1-"}

    site.workspace.warm = False
    process = subprocess.Popen(
        [sys.executable, *command("1h")],
        cwd=site.workspace.root,
        env=site.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    site.workspace.warm = True
    until(lambda: list(state.glob("samples-*/seed-2-*.safetensors")), 900)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {path: path.stat().st_mtime_ns for path in old} == old

    said = site.python(*command("1h"))
    (path,) = (site.workspace.root / ".scoremodel/compare").glob("*.json")
    rounds = json.loads(path.read_text())["rounds"]
    sizes = [len(one["size"]["sampling_seeds"]) for one in rounds]
    assert sizes == [2, 4, 6, 9, 14][: len(sizes)]
    assert len(sizes) > 1
    answers = [one["found"][0]["answer"] for one in rounds]
    assert answers[:-1] == ["undecided"] * (len(sizes) - 1)
    assert answers[-1] in ("better", "worse")
    names = site.workspace.git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()
    assert sorted(one["experiment"] for one in rounds) == sorted(
        name for name in names if name.startswith("compare-")
    )
    notes = [json.loads(note.read_text())["run"] for note in site.workspace.spied.iterdir()]
    assert sorted(run for run in notes if run.startswith("train@")) == [
        "train@mixture-short-0",
        "train@mixture-vp-0",
    ]
    assert list(state.glob("samples-*/*")) == []  # decided: what was kept is gone
    assert f"decided, after {len(sizes)} rounds" in said

    again = site.python(*command("1h"))
    assert f"decided, after {len(sizes)} rounds" in again
    assert "0 of 1 stages were run" in again
    assert json.loads(path.read_text())["rounds"] == rounds
