"""The stages of a workspace, or of many, run in the order of their graphs as far as there is room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows.progress import progress
from tasks.files.dvc import DvcFailedError, StageKilledError, StoppedError, run_dvc
from tasks.files.gpus import gpus, some_gpus
from tasks.files.graph import CHECK, StageNode, changed, identities, mistakes
from tasks.files.schedule import Done, cores, schedule
from tasks.params.asked import Asked

if TYPE_CHECKING:
    from flows.hand import Hand

__all__ = [
    "At",
    "Place",
    "Places",
    "StageFailedError",
    "Work",
    "failed_with",
    "run_stage",
]


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


class Place(NamedTuple):
    """A workspace whose stages are to run.

    Args:
        root: its folder.
        nodes: its graph, or what of it is to run.
        name: the experiment's that it is for; none for a person's own.
    """

    root: Path
    nodes: list[StageNode]
    name: str = ""

    def key(self, stage: str) -> str:
        """Return the name of a stage among those of all places."""
        return f"{self.name} {stage}".strip()


class Work:
    """A stage to be run, and where.

    Args:
        root: the workspace.
        node: the stage.
        stop: ends the stage when it is set.
        force: whether to run it although nothing changed.
        follow: takes the lines of its bar, where somebody shows its progress already.
    """

    # A plain class: Prefect takes dataclasses among a task's arguments apart, events with them.
    def __init__(
        self,
        root: Path,
        node: StageNode,
        stop: threading.Event,
        force: bool = False,
        follow: Callable[[str], None] | None = None,
    ) -> None:
        self.root, self.node, self.stop = root, node, stop
        self.force, self.follow = force, follow


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


class Places:
    """Workspaces whose stages are brought up to date together; what is the same in several runs once.

    Args:
        places: the workspaces.
        revision: the short commit, for people.
        stop: ends it when it is set.
        force: whether to run stages although nothing changed.
        hand: how a stage with a pool is handed to its workers; None if all run here.
    """

    def __init__(
        self,
        places: list[Place],
        revision: str,
        stop: threading.Event,
        force: bool = False,
        hand: Hand | None = None,
    ) -> None:
        self.places, self.revision, self.stop = places, revision, stop
        self.force, self.hand = force, hand
        self._works: dict[str, Work] = {}
        self._done: dict[str, Done] = {}

    def check(self) -> None:
        """Bring the stage `check` of each up to date: it says which of the others have changed at all.

        Raises:
            ValueError: with the mistakes that it found.
            StoppedError: if `stop` was set.
        """
        nodes = [
            self._take(place, node)
            for place in self.places
            for node in place.nodes
            if node.name == CHECK
        ]
        self._done, failed = schedule(nodes, self._submit, self._room, self.stop.set)
        if self.stop.is_set():
            raise StoppedError
        if failed:
            roots = [self._works[key].root for key in failed]
            found = [
                mistakes(root) or why for root, why in zip(roots, failed.values(), strict=True)
            ]
            raise ValueError("\n".join(dict.fromkeys(found)))

    def run(self) -> tuple[dict[str, Done], dict[str, str]]:
        """Bring all other stages up to date.

        Returns:
            What became of each stage that ended well, and the reason of each that failed.
        """
        nodes, first = [], dict[str, str]()
        for place in self.places:
            everything = {node.name for node in place.nodes}
            stale = everything if self.force else changed(place.root, place.nodes)
            same = identities(place.root, place.nodes) if len(self.places) > 1 else {}
            for node in place.nodes:
                key = place.key(node.name)
                original = first.setdefault(same.get(node.name, key), key)
                if node.name == CHECK:
                    continue
                if node.name in stale:
                    nodes.append(self._take(place, node, *[original] * (original != key)))
                else:
                    self._done[key] = Done(key, "up to date")
        return schedule(nodes, self._submit, self._room, self.stop.set, self._done)

    def _take(self, place: Place, node: StageNode, *more: str) -> StageNode:
        key = place.key(node.name)
        self._works[key] = Work(place.root, node, self.stop, self.force)
        upstream = (*map(place.key, node.upstream), *more)
        pool = node.pool if self.hand is not None else None
        return replace(node, name=key, upstream=upstream, pool=pool)

    def _submit(self, node: StageNode) -> Any:
        work = self._works[node.name]
        if self.hand is not None and node.pool is not None:
            return self.hand.over.submit(node.name, self.revision, work, self.hand)
        prepared = run_stage.with_options(retries=node.retries)
        return prepared.submit(node.name, self.revision, work)

    def _room(self) -> dict[str, int]:
        here = {"cores": cores(), "gpus": len(gpus(self.places[0].root))}
        return here | (self.hand.room() if self.hand is not None else {})
