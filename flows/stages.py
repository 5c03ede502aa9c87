"""Stages as tasks: one, here, through DVC; and those of a workspace, or of many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows.progress import progress
from tasks.files.dvc import DvcFailedError, StageKilledError, run_dvc
from tasks.files.gpus import some_gpus
from tasks.files.graph import StageNode
from tasks.files.places import Place, Places, Work
from tasks.files.schedule import Done
from tasks.params.asked import Asked

if TYPE_CHECKING:
    from flows.hand import Hand

__all__ = ["At", "StageFailedError", "failed_with", "run_stage", "together"]


class StageFailedError(RuntimeError):
    """A stage's command ended with an error; its own lines are in the log."""


class At(NamedTuple):
    """Where a flow works, and how.

    Args:
        root: the workspace, which is the current folder.
        stop: ends the work when it is set.
        asked: what it was asked beside its own parameters.
    """

    root: Path
    stop: threading.Event
    asked: Asked


def failed_with(kind: type[Exception]) -> Callable[[Any, TaskRun, State[Any]], bool]:
    """Return what says of a task's end whether it is worth another try: a failure of this kind."""
    return lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), kind)


@task(
    name="stage",
    task_run_name="{stage} · {revision}",
    cache_policy=NO_CACHE,
    retry_delay_seconds=1,
    retry_condition_fn=failed_with(StageKilledError),
)
def run_stage(stage: str, revision: str, work: Work) -> Done:
    """Run one stage through DVC, its lines in the log.

    Args:
        stage: what it is called.
        revision: the short commit that is checked out, for people.
        work: what is to be done, and where.

    Returns:
        What became of it.

    Raises:
        StageKilledError: if its process was killed from outside; another try goes on from there.
        StageFailedError: if DVC reports an error or the deadline passes.
    """
    node, say = work.node, get_run_logger().info
    # --single-item: two stages side by side would both claim what they share upstream.
    arguments = ["repro", "--single-item", *["--force"] * work.force, node.name]
    began = time.monotonic()
    following = nullcontext(work.follow) if work.follow else progress(stage, revision)
    with following as follow, some_gpus(work.root, node.gpus, say, work.stop) as environment:
        try:
            child = run_dvc(
                arguments,
                work.root,
                say,
                stop=work.stop,
                timeout=node.timeout,
                environment=environment,
                watch=follow,
            )
        except StageKilledError as error:
            raise StageKilledError(f"{stage}: {error}") from None
        except DvcFailedError as error:
            raise StageFailedError(f"{stage}: {error}") from None
    used = len(environment.get("CUDA_VISIBLE_DEVICES", "").split(",")) if environment else 0
    return Done(stage, child.outcome(node.name), time.monotonic() - began, gpus=used)


def together(
    at: At, places: list[Place], revision: str, hand: Hand | None, force: bool = False
) -> Places:
    """Return workspaces whose stages are run as tasks of a flow.

    Args:
        at: where the flow works, and how.
        places: the workspaces.
        revision: the short commit, for people.
        hand: how a stage with a pool is handed to its workers; None if all run here.
        force: whether to run stages although nothing changed.

    Returns:
        What runs them.
    """

    def submit(node: StageNode, work: Work) -> Any:
        if hand is not None and node.pool is not None:
            return hand.over.submit(node.name, revision, work, hand)
        return run_stage.with_options(retries=node.retries).submit(node.name, revision, work)

    return Places(places, submit, at.stop, force, hand.room if hand is not None else None)
