"""A stage run in a workspace on this machine, as a Prefect task."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from ruamel.yaml import YAML

from flows.child import DvcFailedError, Say, StageKilledError, run_dvc
from flows.clones import workspaces
from flows.graph import StageNode
from flows.progress import Progress

__all__ = [
    "Done",
    "Job",
    "StageFailedError",
    "cores",
    "failures_of",
    "gpus",
    "killed",
    "one_gpu",
    "run_stage",
]


class StageFailedError(RuntimeError):
    """A stage's command ended with an error; its own lines are in the log."""


@dataclass(frozen=True)
class Done:
    """What became of a stage.

    Args:
        stage: its name.
        outcome: "ran", "restored" (from a cache or a remote) or "up to date".
        seconds: the time it took, restoring and pushing included.
        where: the machine, or the work pool, on which it was.
        waited: seconds before that, for a worker or for what else was under way.
        gpus: how many GPUs it had.
    """

    stage: str
    outcome: str
    seconds: float = 0.0
    where: str = "here"
    waited: float = 0.0
    gpus: int = 0


class Job:
    """How and where a stage is to be run.

    Args:
        root: the workspace.
        node: the stage.
        stop: ends the stage when it is set.
        force: whether to run it although nothing changed.
        pull: whether to look into the DVC remote for what is missing.
        follow: takes every line, None for a progress artifact of its own.
    """

    # A plain class: Prefect takes dataclasses among a task's arguments apart, events with them.
    def __init__(
        self,
        root: Path,
        node: StageNode,
        stop: threading.Event,
        force: bool = False,
        pull: bool = False,
        follow: Progress | None = None,
    ) -> None:
        self.root, self.node, self.stop = root, node, stop
        self.force, self.pull, self.follow = force, pull, follow


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(root: Path) -> tuple[str, ...]:
    """Return the GPUs that stages here may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        root: the workspace, whose `device:` may rule them out.

    Returns:
        Their names; one empty name if the stages name their GPU themselves (`device: cuda:1`).
    """
    device = str(YAML(typ="safe", pure=True).load(root / "params.yaml").get("device", "auto"))
    if device.startswith("cuda:"):
        return ("",)
    if device not in ("auto", "cuda"):
        return ()
    there = _installed_gpus()
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        named = filter(None, os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        return tuple(there.get(name.strip(), name.strip()) for name in named)
    return tuple(there.values())


def _installed_gpus() -> dict[str, str]:
    """Return the name of each GPU by its number: numbers are another GPU's in another container."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in listed.splitlines() if "," in line)
    return {number.strip(): name.strip() for number, name in pairs}


@contextmanager
def one_gpu(root: Path, say: Say, stop: threading.Event) -> Iterator[dict[str, str]]:
    """Yield the environment of a stage that has one GPU to itself, whoever else runs stages here.

    Args:
        root: the workspace.
        say: is told about a wait.
        stop: ends the wait when it is set.

    Yields:
        CUDA_VISIBLE_DEVICES; nothing where there is no GPU, or the stages name theirs.
    """
    names = [name for name in gpus(root) if name]
    if not names:
        yield {}
        return
    workspaces().mkdir(parents=True, exist_ok=True)
    locks = {name: FileLock(workspaces() / f"gpu-{name}.lock") for name in names}
    waited = False
    while not stop.is_set():
        for name, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield {"CUDA_VISIBLE_DEVICES": name}
            finally:
                lock.release()
            return
        if not waited:
            say(f"waits for a GPU: another stage is on {', '.join(names)}")
            waited = True
        stop.wait(1.0)
    yield {}


def killed(task: Any, run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001
    """Return whether a stage's failure is one after which the same command goes on."""
    return isinstance(state.result(raise_on_failure=False), StageKilledError)


@contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Say of DVC's failures what they are of; one whose process was killed can be tried again.

    Args:
        name: a stage's or an experiment's.

    Yields:
        Nothing.

    Raises:
        StageKilledError: if the process was killed from outside.
        StageFailedError: if DVC reports an error or the deadline passes.
    """
    try:
        yield
    except StageKilledError as error:
        raise StageKilledError(f"{name}: {error}") from None
    except DvcFailedError as error:
        raise StageFailedError(f"{name}: {error}") from None


@task(name="stage", task_run_name="{stage} · {revision}", cache_policy=NO_CACHE)
def run_stage(stage: str, revision: str, job: Job) -> Done:
    """Run one stage through DVC, its lines in the log.

    Args:
        stage: the stage's name in DVC.
        revision: the short commit that is checked out, for people.
        job: how and where.

    Returns:
        What became of it.

    Raises:
        StageKilledError: if its process was killed from outside; another try goes on from there.
        StageFailedError: if DVC reports an error or the deadline passes.
    """
    logger = get_run_logger()
    # --single-item: two stages side by side would both claim what they share upstream.
    arguments = ["repro", "--single-item", *["--pull"] * job.pull, *["--force"] * job.force, stage]
    began = time.monotonic()
    shown = job.follow or Progress(stage, revision)
    with (
        _optional(shown, entered=job.follow is not None),
        _gpu(job, logger.info) as environment,
        failures_of(stage),
    ):
        child = run_dvc(
            arguments,
            job.root,
            logger.info,
            stop=job.stop,
            timeout=job.node.timeout,
            environment=environment,
            watch=shown.follow,
        )
    return Done(stage, child.outcome(stage), time.monotonic() - began)


@contextmanager
def _optional(progress: Progress, entered: bool) -> Iterator[None]:
    if entered:
        yield
    else:
        with progress:
            yield


@contextmanager
def _gpu(job: Job, say: Say) -> Iterator[dict[str, str]]:
    if not job.node.gpus:
        yield {}
        return
    with one_gpu(job.root, say, job.stop) as environment:
        yield environment
