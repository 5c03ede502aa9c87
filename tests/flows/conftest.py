"""A real server for the tests of the flows, and workspaces whose stages its workers can run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import shared
from tests.cluster import Cluster
from tests.workspace import Workspace

WEIGHTS = shared.MIXTURE_WEIGHTS
TRAIN = shared.MIXTURE_TRAIN
PULSE = "1"  # seconds between a stage's signs of life, so that a dead one is noticed soon


class Site:
    """A project, a server with its pools, and the people and machines around them."""

    def __init__(self, cluster: Cluster, workspace: Workspace, folder: Path) -> None:
        self.cluster, self.workspace, self.folder = cluster, workspace, folder
        self.storage = folder / "storage"
        self.opened = datetime.now(UTC).isoformat()
        self.started: list[subprocess.Popen[bytes]] = []

    def train_for(self, steps: int, every_steps: int, **training: Any) -> None:
        """Give the model a training to do, and commit that."""
        shared.train_for(self.workspace, steps, every_steps, **training)
        self.commit("another training")

    def commit(self, message: str) -> None:
        self.workspace.git("add", "-A")
        self.workspace.git("commit", "-qm", message)

    def worker(
        self, pool: str, name: str, machine: str = "", **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker on a machine of its own, or on one on which others were before."""
        place = self.folder / "machines" / (machine or name)
        settings = {
            **self.workspace.warmth(),
            "SCOREMODEL_PULSE": PULSE,
            # Whoever runs the worker allows this test's repositories; one server serves all tests.
            "SCOREMODEL_REPOSITORIES": f"{self.folder}/",
        }
        process = self.cluster.start_worker(
            pool, f"{name}-{self.folder.name}", place=place, **settings | variables
        )
        self.started.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """Return the environment of a person in the workspace, with the server."""
        cluster = self.cluster.environment(SCOREMODEL_PULSE=PULSE, **self.workspace.warmth())
        return self.workspace.environment() | cluster

    def flow(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the flow as a person would."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.pipeline", *arguments],
            cwd=self.workspace.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def python(self, *arguments: str, status: int = 0) -> str:
        """Run Python in the workspace, with the server; fail unless it exits with `status`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.workspace.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def api(self, path: str, **content: Any) -> Any:
        """Ask the server."""
        answer = httpx.post(f"{self.cluster.url}/{path}", json=content, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def forget_workers(self, pool: str) -> None:
        """Have the server forget other tests' workers, which it was told of a moment ago."""
        for worker in self.api(f"work_pools/{pool}/workers/filter"):
            gone = f"{self.cluster.url}/work_pools/{pool}/workers/{worker['name']}"
            httpx.delete(gone, timeout=30).raise_for_status()

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return a flow's runs for this project and in this test, newest first."""
        named = {"name": {"any_": [flow]}}
        mine = {"expected_start_time": {"after_": self.opened}}
        found = self.api("flow_runs/filter", flows=named, flow_runs=mine, sort="START_TIME_DESC")
        tag = f"revision:{self.workspace.git('rev-parse', 'HEAD')[:7]}"
        return [run for run in found if any(one.startswith(tag) for one in run["tags"])]

    def trainers(self, module: str = "tasks.train") -> list[psutil.Process]:
        """Return the trainings, or other stages, that are at work below this test's folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            try:
                line = process.info["cmdline"] or []
                if module in line and Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def states(self) -> list[Path]:
        """Return all checkpoints of unfinished trainings, on whatever machine."""
        places = ("project/.scoremodel/state", "machines/*/*/state")
        found = [
            path for place in places for path in self.folder.glob(f"{place}/*/step-*.safetensors")
        ]
        return sorted(found, key=lambda path: path.name)

    def digest(self) -> str:
        """Return the hash of the trained weights in the person's workspace."""
        return hashlib.sha256((self.workspace.root / WEIGHTS).read_bytes()).hexdigest()

    def undisturbed(self) -> str:
        """Return the hash of the weights that plain DVC makes in a copy of its own."""
        other = shared.copy(self.workspace, self.folder / "undisturbed")
        other.dvc("repro", TRAIN)
        return hashlib.sha256((other.root / WEIGHTS).read_bytes()).hexdigest()


def until(what: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Return what the condition gives once it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with a training of points in the plane to do; tests may not change it."""
    return shared.once(tmp_path_factory, "mixture", shared.with_mixture)


@pytest.fixture(scope="session")
def cluster(untrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a server with its own database, on which the project is deployed."""
    with Cluster(tmp_path_factory.mktemp("cluster"), untrained.root) as running:
        running.deploy()
        yield running


def opened(cluster: Cluster, workspace: Workspace, folder: Path) -> Iterator[Site]:
    """Yield a project with a DVC remote and a server; what a test starts on it ends with it."""
    made = Site(cluster, workspace, folder)
    workspace.git("branch", "-M", "main")
    workspace.dvc("remote", "add", "--local", "--default", "storage", str(made.storage))
    yield made
    for process in made.started:
        cluster.end(process)
    for process in made.trainers():
        process.kill()


@pytest.fixture
def site(cluster: Cluster, copied: Workspace, tmp_path: Path) -> Iterator[Site]:
    """Return a project in which everything has run once."""
    yield from opened(cluster, copied, tmp_path)


@pytest.fixture
def training_site(cluster: Cluster, untrained: Workspace, tmp_path: Path) -> Iterator[Site]:
    """Return a project with a training to do, whose processes a test may look for."""
    yield from opened(cluster, shared.copy(untrained, tmp_path, warm=False), tmp_path)
