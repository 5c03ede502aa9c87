"""`make demo-workers`: the pipeline on digits through workers, all on this machine.

A server, a `cpu` and a `gpu` pool with a worker each in workspaces of their own, and a DVC remote
in a folder: the processes share nothing else, so they could be on different machines. All of it is
in a temporary folder, and is stopped and removed at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from ruamel.yaml import YAML

from scoremodel.io.files import atomic_path
from tasks.files.git import git
from tests.cluster import Cluster

__all__ = ["main"]

_STEPS = 300


def _shorten(root: Path, steps: int) -> None:
    """Commit a short training, in the demonstration's own clone."""
    yaml = YAML()
    path = root / "params.yaml"
    params = yaml.load(path)
    params["defaults"]["model"]["training"] |= {
        "steps": steps,
        "warmup_steps": min(100, steps // 3),
    }
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        yaml.dump(params, out)
    identity = ("-c", "user.name=demo", "-c", "user.email=demo@localhost")
    git(root, *identity, "commit", "--quiet", "--all", "--message", "A short training")


def _artifacts(cluster: Cluster) -> list[str]:
    answer = httpx.post(f"{cluster.url}/artifacts/latest/filter", json={"limit": 200}, timeout=30)
    return [
        f"{one['type']:>9}  {one['key']}: {one['description']}"
        for one in sorted(answer.json(), key=lambda one: (one["type"], one["key"]))
    ]


def _run(step: Callable[[str], None], folder: Path, steps: int, source: Path) -> int:
    project = folder / "project"
    step(f"a clone of this folder's commit, in {project}")
    git(source, "clone", "--quiet", "--", str(source), str(project))
    _shorten(project, steps)
    with Cluster(folder, project) as cluster:
        step(f"a Prefect server with a database of its own: {cluster.url.removesuffix('/api')}")
        cluster.run("dvc", "remote", "add", "--local", "--default", "demo", str(folder / "remote"))
        step("a DVC remote in a folder")
        cluster.deploy()
        step("the pools local, cpu and gpu, and the deployments of prefect.yaml")
        for pool in ("cpu", "gpu"):
            cluster.start_worker(pool, f"{pool}0")
        step("a worker for cpu and one for gpu, each with worktrees and a cache of its own")
        command = [sys.executable, "-m", "flows.pipeline", "--executor", "workers"]
        done = subprocess.run(command, cwd=project, env=cluster.environment(), check=False)
        if done.returncode:
            return done.returncode
        step("artifacts on the server")
        print("\n".join(_artifacts(cluster)), flush=True)
        step("once more: nothing is left to do")
        done = subprocess.run(command, cwd=project, env=cluster.environment(), check=False)
    step("everything is stopped")
    return done.returncode


def main() -> None:
    """Run the demonstration; exit with the flow's status."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--steps", type=int, default=_STEPS, help="of the training")
    parser.add_argument("--keep", type=Path, help="use this folder and leave it")
    given = parser.parse_args()
    began = time.monotonic()

    # As an error, so that what was started is stopped and the folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def step(what: str) -> None:
        print(f"\n=== {time.monotonic() - began:5.0f} s  {what}", flush=True)

    if given.keep is not None:
        given.keep.mkdir(parents=True)
        status = _run(step, given.keep.absolute(), given.steps, Path.cwd())
    else:
        with tempfile.TemporaryDirectory(prefix="scoremodel-demo-") as folder:
            status = _run(step, Path(folder), given.steps, Path.cwd())
    raise SystemExit(status)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
