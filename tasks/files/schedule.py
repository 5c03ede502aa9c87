"""Stages run in the order of their graph, as far as there is room for what they claim."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tasks.files.graph import StageNode

__all__ = ["Done", "cores", "reasons", "schedule"]

_LEFT_OUT = "left out, a stage before it failed"
_LOOK = 5.0  # seconds until it is looked again whether there is room: a worker may have come


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


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
