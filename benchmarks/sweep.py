"""A sweep on one machine and over two workers: `python -m benchmarks.sweep`.

Eight combinations whose trainings differ, points in the plane, in a workspace of its own. A training
claims as many cores as there are, so one machine has one at a time, and computes on one core, so two
workers on this machine are like two machines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from tests import shared
from tests.cluster import Cluster
from tests.workspace import Workspace

_RATES = [0.001 * (1 + number) for number in range(8)]


def _prepare(folder: Path, steps: int) -> Workspace:
    workspace = shared.with_mixture(folder)
    shared.train_for(workspace, steps, every_steps=steps)
    path = workspace.root / "dvc.yaml"
    text = path.read_text().replace('cores: "${threads}"', f"cores: {os.cpu_count()}")
    path.write_text(text)
    params = workspace.params()
    params["active"]["samplers"] = ["heun"]
    workspace.write_params(params)
    workspace.git("add", "--all")
    workspace.git("commit", "-qm", "a training that has a machine to itself")
    return workspace


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30000, help="of a training")
    steps = parser.parse_args().steps
    grid = json.dumps({"models.vp.training.learning_rate": _RATES})
    command = [sys.executable, "-m", "flows.experiments", "sweep", "--grid", grid]
    rows = []
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as name:
            workspace = _prepare(Path(name) / "project", steps)
            remote = str(Path(name) / "storage")
            workspace.dvc("remote", "add", "--local", "--default", "storage", remote)
            with Cluster(Path(name) / "cluster", workspace.root) as cluster:
                cluster.deploy()
                for number in range(workers):
                    cluster.start_worker("gpu", f"gpu{number}")
                if workers:
                    cluster.start_worker("cpu", "cpu0")
                environment = workspace.environment() | cluster.environment()
                executor = ["--executor", "workers" if workers else "local"]
                began = time.perf_counter()
                subprocess.run(
                    [*command, *executor], cwd=workspace.root, env=environment, check=True
                )
                took = time.perf_counter() - began
        where = f"{workers} workers" if workers else "this machine alone"
        rows.append({"8 combinations on": where, "seconds": took})
    rows[1]["times faster"] = rows[0]["seconds"] / rows[1]["seconds"]
    print(f"8 trainings of {steps} steps, {os.cpu_count()} cores\n")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()
