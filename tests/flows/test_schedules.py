"""Deployments that work in worktrees of their own: a cron run fires, and what it commits and where."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.flows.conftest import Site, until

pytestmark = pytest.mark.slow


def ended(site: Site) -> list[dict[str, Any]]:
    return [run for run in site.runs("pipeline") if run["state_type"] == "COMPLETED"]


def test_a_cron_run_fires_by_itself_and_works_in_its_own_worktree(site: Site) -> None:
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
