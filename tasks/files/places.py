"""Workspaces whose stages are brought up to date together, in the order of their graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tasks.files.dvc import StoppedError
from tasks.files.gpus import gpus
from tasks.files.graph import CHECK, StageNode, changed, identities, mistakes
from tasks.files.schedule import Done, cores, schedule

__all__ = ["Place", "Places", "Work"]


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


class Places:
    """Workspaces whose stages are brought up to date together; what is the same in several runs once.

    Args:
        places: the workspaces.
        submit: starts a stage, given by its name among those of all places, and by what is to be done;
            returns its future.
        stop: ends it when it is set.
        force: whether to run stages although nothing changed.
        pools: returns the room in each pool; None if stages with a pool run here too.
    """

    def __init__(
        self,
        places: list[Place],
        submit: Callable[[StageNode, Work], Any],
        stop: threading.Event,
        force: bool = False,
        pools: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self.places, self.stop, self.force = places, stop, force
        self.submit, self.pools = submit, pools
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
        pool = node.pool if self.pools is not None else None
        return replace(node, name=key, upstream=upstream, pool=pool)

    def _submit(self, node: StageNode) -> Any:
        return self.submit(node, self._works[node.name])

    def _room(self) -> dict[str, int]:
        here = {"cores": cores(), "gpus": len(gpus(self.places[0].root))}
        return here | (self.pools() if self.pools is not None else {})
