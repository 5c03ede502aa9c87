"""The stages of a workspace, or of many, run in the order of their graphs as far as there is room."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows.progress import Progress
from tasks.files.dvc import DvcFailedError, StageKilledError, StoppedError, run_dvc
from tasks.files.gpus import gpus, some_gpus
from tasks.files.graph import CHECK, StageNode, changed, identities, mistakes

if TYPE_CHECKING:
    from flows.hand import Hand

__all__ = [
    "Done",
    "Place",
    "Places",
    "StageFailedError",
    "Work",
    "cores",
    "failed_with",
    "reasons",
    "run_stage",
    "schedule",
]

_LEFT_OUT = "left out, a stage before it failed"
_LOOK = 5.0  # seconds until it is looked again whether there is room: a worker may have come


class StageFailedError(RuntimeError):
    """A stage's command ended with an error; its own lines are in the log."""


@dataclass(frozen=True)
class Done:
    """What became of a stage.

    Args:
        stage: its name.
        outcome: "ran", "restored" (from a cache) or "up to date".
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
        progress: who shows its progress already.
    """

    # A plain class: Prefect takes dataclasses among a task's arguments apart, events with them.
    def __init__(
        self,
        root: Path,
        node: StageNode,
        stop: threading.Event,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.root, self.node, self.stop = root, node, stop
        self.force, self.progress = force, progress


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    following = nullcontext(work.progress) if work.progress else Progress(stage, revision)
    with following as shown, some_gpus(work.root, node.gpus, say, work.stop) as environment:
        try:
            child = run_dvc(
                arguments,
                work.root,
                say,
                stop=work.stop,
                timeout=node.timeout,
                environment=environment,
                watch=shown.follow,
            )
        except StageKilledError as error:
            raise StageKilledError(f"{stage}: {error}") from None
        except DvcFailedError as error:
            raise StageFailedError(f"{stage}: {error}") from None
    used = len(environment.get("CUDA_VISIBLE_DEVICES", "").split(",")) if environment else 0
    return Done(stage, child.outcome(node.name), time.monotonic() - began, gpus=used)


def schedule(
    nodes: list[StageNode],
    submit: Callable[[StageNode], Any],
    room: Callable[[], Mapping[str, int]],
    halt: Callable[[], None] = lambda: None,
    done: Mapping[str, Done] | None = None,
) -> tuple[dict[str, Done], dict[str, str]]:
    """Run stages, each when all before it are done and what it claims is free.

    A stage that claims more than there is runs when all of it is free. After a failure the stages
    that depend on it are left out, the others still run.

    Args:
        nodes: the stages in topological order.
        submit: starts a stage; returns its future, Prefect's or the standard library's.
        room: how many "cores", "gpus", and stages of each pool there is room for; what it does not
            name is not counted.
        halt: ends what runs, if this is ended itself.
        done: what has become of other stages before.

    Returns:
        What became of each stage that ended well, and the reason of each that failed.
    """
    waiting = {node.name: node for node in nodes}
    running: dict[Any, StageNode] = {}
    finished, failed = dict(done or {}), dict[str, str]()
    # As many handed over as there are workers, side by side within cores and GPUs: Prefect's slots
    # would outlive a `kill -9` by minutes (test_a_new_flow_takes_over_from_a_killed_one).
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def fits(node: StageNode, total: Mapping[str, int]) -> bool:
        for what, most in total.items():
            taken = sum(min(_claim(other, what), most) for other in running.values())
            if taken + min(_claim(node, what), most) > most:
                return False
        return True

    def start() -> None:
        total = room()
        for node in list(waiting.values()):
            if not failed.keys().isdisjoint(node.upstream):
                failed[node.name] = _LEFT_OUT
                del waiting[node.name]
            elif finished.keys() >= set(node.upstream) and fits(node, total):
                future = submit(waiting.pop(node.name))
                running[future] = node
                future.add_done_callback(ended.put)

    try:
        while waiting or running:
            start()
            try:
                future = ended.get(timeout=_LOOK)
            except queue.Empty:
                continue
            node = running.pop(future)
            try:
                finished[node.name] = future.result()
            except Exception as error:  # whatever ended the task: the others go on
                failed[node.name] = str(error)
    except BaseException:
        # Not before they are gone may another run have their workspace.
        halt()
        for future in running:
            with suppress(Exception):
                future.result()
        raise
    return finished, failed


def _claim(node: StageNode, what: str) -> int:
    if node.pool is not None:
        return int(what == f"pool {node.pool}")
    return {"cores": node.cores, "gpus": node.gpus}.get(what, 0)


def reasons(failed: Mapping[str, str]) -> str:
    """Return why stages failed, in one line, without those that only wait for one of them."""
    own = {name: why for name, why in failed.items() if why != _LEFT_OUT} or failed
    lines = [why if name in why else f"{name}: {why}" for name, why in own.items()]
    return "; ".join(dict.fromkeys(lines))


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
