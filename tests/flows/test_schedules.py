"""Deployments that work in clones of their own: a cron run fires, and what it commits and where."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.flows.conftest import Site, until

pytestmark = pytest.mark.slow


def ended(site: Site) -> list[dict[str, Any]]:
    return [run for run in site.runs("pipeline") if run["state_type"] == "COMPLETED"]


def test_a_cron_run_fires_by_itself_and_works_in_its_own_clone(site: Site) -> None:
    origin = site.folder / "origin.git"
    site.workspace.git("clone", "-q", "--bare", ".", str(origin))
    mine = site.workspace.git("status", "--porcelain")
    yaml = YAML()
    path = site.workspace.root / "prefect.yaml"
    content = yaml.load(path)
    (nightly,) = [one for one in content["deployments"] if one["name"] == "nightly"]
    nightly["name"] = "each-minute"
    nightly["schedules"] = [{"cron": "* * * * *", "timezone": "UTC"}]
    nightly["parameters"] = {
        "repository": str(origin),
        "branch": "main",
        "remote": str(site.storage),
        "targets": ["report"],
        "push": True,
        "commit_to": "results",
    }
    content["deployments"] = [nightly]
    del content["build"]  # all is said here
    own = site.folder / "deploy"
    own.mkdir()
    with (own / "prefect.yaml").open("w") as out:
        yaml.dump(content, out)
    # What this workspace has made is in the remote, so the run restores it.
    site.workspace.dvc("push", "--run-cache")
    site.cluster.run("prefect", "--no-prompt", "deploy", "--all", cwd=own)
    site.worker("local", "schedule")
    try:
        # A minute until it is due, and the time that it takes.
        run = until(lambda: ended(site), 900)[0]
    finally:
        site.cluster.run("prefect", "deployment", "delete", "pipeline/each-minute")
    assert run["auto_scheduled"]
    assert run["name"] == "pipeline · main"
    # The person's folder is as it was; the branch has the commit with the results on top.
    assert site.workspace.git("status", "--porcelain") == mine
    bare = ["git", "--git-dir", str(origin)]
    tip = subprocess.run([*bare, "log", "-1", "--format=%s %P", "results"], capture_output=True,
                         text=True, check=True).stdout.split()  # fmt: skip
    head = site.workspace.git("rev-parse", "HEAD").strip()
    assert tip == ["Results", "of", head[:7], head]
    lock = subprocess.run([*bare, "show", "results:dvc.lock"], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    there, here = (YAML(typ="safe").load(text)["stages"] for text in (lock, site.workspace.lock()))
    for stages in (there, here):
        del stages["report"]  # its table has seconds, which are not known for what was restored
    assert there == here
    listed = subprocess.run([*bare, "ls-tree", "-r", "--name-only", "results", "results/ledger/"],
                            capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert len(listed) == 2


def test_a_sweep_brings_its_rows_into_the_ledger_and_leaves_params_alone(site: Site) -> None:
    before = (site.workspace.root / "params.yaml").read_text()
    ledger = site.workspace.root / "results/ledger"
    rows = set(ledger.glob("*.json"))
    grid = {"samplers.heun.steps": [2, 4]}
    command = ("-m", "flows.experiments", "sweep", "--jobs", "2", "--grid", json.dumps(grid))
    said = site.python(*command)
    assert (site.workspace.root / "params.yaml").read_text() == before
    new = [json.loads(path.read_text()) for path in set(ledger.glob("*.json")) - rows]
    nfe = sorted(row["values"]["nfe"] for row in new if row["configuration"].endswith("heun"))
    assert nfe == [3, 7]  # 2 and 4 steps of Heun's method
    head = site.workspace.git("rev-parse", "HEAD").strip()
    assert {row["revision"] for row in new} == {f"{head}+"}
    assert "2 of 2 stages were run" in said
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
