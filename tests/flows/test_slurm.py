"""A pool whose stages are jobs of Slurm: a worker's command that submits them and waits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.flows.conftest import Site, until
from tests.shared import first_out
from tests.workspace import ROOT

pytestmark = pytest.mark.slow

TEMPLATE = str(ROOT / "flows/deploy/slurm.json")

# As much of Slurm as the command sees: jobs have names, are no children of sbatch, and outlive it.
# They wait in the queue while the file `full` is there.
SBATCH = """#!/bin/sh
for word; do case $word in
    --job-name=*) name=${word#*=};;
    --wrap=*) wrap=${word#*=};;
esac; done
job=$SLURM_FAKE/jobs/$name
mkdir -p "$job"
for word; do echo "$word" >> "$job/arguments"; done
wrap=$wrap job=$job setsid sh -c '
    echo $$ > "$job/leader"
    while [ -e "$SLURM_FAKE/full" ]; do sleep 0.1; done
    SLURM_JOB_ID=7 sh -c "$wrap"
    echo $? > "$job/ended"' &
until [ -e "$job/ended" ]; do sleep 0.1; done
exit "$(cat "$job/ended")"
"""
SCANCEL = """#!/bin/sh
job=$SLURM_FAKE/jobs/${1#--name=}
kill -TERM -- "-$(cat "$job/leader")"
echo 15 > "$job/ended"
"""


class Slurm:
    """A project with a stage for a pool of Slurm's jobs, and a worker of that pool."""

    def __init__(self, site: Site) -> None:
        self.site, self.folder = site, site.folder / "slurm"
        self.folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        root = site.workspace.root
        (root / "in_slurm.py").write_text(
            "import os, pathlib\npathlib.Path('job.txt').write_text(os.environ['SLURM_JOB_ID'])\n"
        )
        stage = (
            "  queued:\n    cmd: python in_slurm.py\n"
            f"    deps: [in_slurm.py, {first_out(site.workspace, 'check')}]\n"
            "    outs: [job.txt]\n    meta: {pool: slurm}\n\nplots:"
        )
        text = (root / "dvc.yaml").read_text()
        (root / "dvc.yaml").write_text(text.replace("\nplots:", "\n" + stage, 1))
        yaml = YAML()
        content = yaml.load(root / "prefect.yaml")
        pool = {"name": "slurm", "job_variables": {"gpus": 2, "extra": "--account=us --mem=1G"}}
        gpu = next(one for one in content["deployments"] if one["name"] == "gpu")
        content["deployments"] = [gpu | {"name": "slurm", "work_pool": pool}]
        yaml.dump(content, root / "prefect.yaml")
        site.commit("a stage for Slurm")
        create = ("work-pool", "create", "slurm", "--type", "process", "--overwrite")
        site.cluster.run("prefect", *create, "--base-job-template", TEMPLATE)
        site.cluster.run("prefect", "--no-prompt", "deploy", "--all", cwd=root)
        path = os.pathsep.join(
            [str(self.folder), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        site.worker(
            "slurm", "slurm0", PATH=path, HOME=str(site.folder), SLURM_FAKE=str(self.folder)
        )

    def job(self) -> Path | None:
        """Return the one job's folder, once it is submitted."""
        found = list(self.folder.glob("jobs/*/leader"))
        assert len(found) <= 1
        return found[0].parent if found else None


@pytest.fixture
def slurm(training_site: Site) -> Slurm:
    return Slurm(training_site)


def test_a_stage_runs_in_a_job_with_the_pool_s_options(slurm: Slurm) -> None:
    flow = slurm.site.flow("queued", "--executor", "workers")
    said, _ = flow.communicate(timeout=180)
    assert flow.returncode == 0, said
    assert (slurm.site.workspace.root / "job.txt").read_text() == "7"
    job = slurm.job()
    assert job is not None
    arguments = (job / "arguments").read_text().splitlines()
    assert {"--wait", "--partition=gpu", "--gpus=2", "--account=us", "--mem=1G"} <= set(arguments)
    assert (job / "ended").read_text() == "0\n"


def test_a_cancelled_run_s_job_leaves_the_queue(slurm: Slurm) -> None:
    (slurm.folder / "full").touch()
    flow = slurm.site.flow("queued", "--executor", "workers")
    job = until(slurm.job)
    run = slurm.site.runs("pipeline")[0]
    slurm.site.api(f"flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
    said, _ = flow.communicate(timeout=120)
    assert flow.returncode == 1, said
    until(lambda: (job / "ended").exists(), 120)
    (stage,) = slurm.site.runs("stage")
    assert stage["id"] == job.name
    until(lambda: slurm.site.runs("stage")[0]["state_type"] == "CANCELLED", 120)
