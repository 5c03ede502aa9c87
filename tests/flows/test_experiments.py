"""Sweeps and comparisons: each experiment a commit, what they share runs once, here or on workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Site

pytestmark = pytest.mark.slow

SWEEP = ("-m", "flows.experiments", "sweep", "--grid")


def new_rows(site: Site, before: set[Path]) -> list[dict[str, Any]]:
    """Return the ledger's rows that were not there before."""
    after = set((site.workspace.root / "results/ledger").glob("*.json"))
    return [json.loads(path.read_text()) for path in after - before]


def table(said: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return what became of each stage of each experiment, and where: (experiment, stage) → both."""
    found = {}
    for line in said.splitlines():
        words = line.split()
        if len(words) >= 5 and words[2] in ("ran", "restored"):
            found[words[0], words[1]] = (words[2], " ".join(words[4:]))
    return found


@pytest.mark.long
def test_a_sweep_over_two_workers_gives_one_machine_s_rows(training_site: Site) -> None:
    """Two trainings, one on each worker; what both need runs once."""
    site = training_site
    site.workspace.warm = True
    grid = {"models.vp.training.learning_rate": [0.001, 0.002]}
    params = site.workspace.params()
    params["active"]["samplers"] = ["heun"]
    site.workspace.write_params(params)
    site.commit("one sampler")
    alone = site.folder / "alone"
    site.workspace.git("clone", "-q", ".", str(alone))
    for name in ("cpu0", "gpu0", "gpu1"):
        site.worker(name[:3], name)
    said = site.python(*SWEEP, json.dumps(grid), "--executor", "workers")
    became = table(said)
    outcomes = {stage: sorted(outcome for (_, other), (outcome, _) in became.items() if other == stage)
                for stage in ("train@mixture-vp-0", "extractor@mixture", "reference@mixture")}  # fmt: skip
    assert outcomes["train@mixture-vp-0"] == ["ran", "ran"]
    assert outcomes["extractor@mixture"] == outcomes["reference@mixture"] == ["ran", "restored"]
    rows = new_rows(site, set())
    assert len(rows) == 2
    assert site.workspace.git("status", "--porcelain", "--", ".", ":!results", ":!dvc.lock") == ""
    assert site.workspace.git("worktree", "list").count("\n") <= 1

    site.workspace.root, original = alone, site.workspace.root
    here = site.python(*SWEEP, json.dumps(grid))
    there = new_rows(site, set())
    site.workspace.root = original
    assert not [line for line in here.splitlines() if "gpu: " in line]
    assert {row["key"]: row["values"] for row in rows} == {
        row["key"]: row["values"] for row in there
    }


@pytest.mark.long
def test_a_sweep_brings_its_rows_into_the_ledger_and_leaves_params_alone(site: Site) -> None:
    before = (site.workspace.root / "params.yaml").read_text()
    ledger = site.workspace.root / "results/ledger"
    rows = set(ledger.glob("*.json"))
    grid = {"samplers.heun.steps": [2, 4]}
    command = ("-m", "flows.experiments", "sweep", "--grid", json.dumps(grid))
    said = site.python(*command)
    assert (site.workspace.root / "params.yaml").read_text() == before
    new = [json.loads(path.read_text()) for path in set(ledger.glob("*.json")) - rows]
    nfe = sorted(row["values"]["nfe"] for row in new if row["configuration"].endswith("heun"))
    assert nfe == [3, 7]  # 2 and 4 steps of Heun's method
    head = site.workspace.git("rev-parse", "HEAD").strip()
    assert {row["revision"] for row in new} == {f"{head}+"}
    # What both share, and the workspace too, ran once: there.
    ran = sorted(line.split()[1] for line in said.splitlines() if " ran " in line)
    print(ran)
    # Given again it runs nothing.
    again = site.python(*command)
    assert "0 of 2 stages were run" in again


def test_a_comparison_ends_with_the_verdict_and_leaves_params_alone(site: Site) -> None:
    params = site.workspace.params()
    vp = params["models"]["vp"]
    params["models"]["ve"] |= {key: vp[key] for key in ("network", "training") if key in vp}
    site.workspace.write_params(params)
    site.commit("a small VE")
    before = (site.workspace.root / "params.yaml").read_text()
    command = ("-m", "flows.experiments", "compare", "--train-seeds", "0", "1", "2")
    said = site.python(*command, "--samplers", "heun")
    assert (site.workspace.root / "params.yaml").read_text() == before
    (sentence,) = {line for line in said.splitlines() if line.startswith("digits, heun, FD")}
    assert "in pairs of 3 training seeds × 3 sampling seeds" in sentence
    assert Path(site.workspace.root / "results/ledger").is_dir()
