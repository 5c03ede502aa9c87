"""The stage graph, read from DVC: there is no second list of stages anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

__all__ = ["StageNode", "ancestors", "changed", "select", "stage_graph"]


@dataclass(frozen=True)
class StageNode:
    """One stage of `dvc.yaml`, its matrix resolved.

    Args:
        name: its name in DVC, such as "train@digits-ve-0".
        upstream: the stages whose outputs it depends on.
        pool: the work pool whose workers run it (`meta: pool`), None if it runs where the flow does.
        cores: how many CPU cores it claims (`meta: cores`), 1 if it says nothing.
        gpus: how many GPUs it claims (`meta: gpus`), where there are any.
        timeout: seconds after which it is stopped (`meta: timeout`), None for no deadline.
        retries: how often it is tried again after it was killed (`meta: retries`).
        outputs: the paths of its declared outputs, relative to `dvc.yaml`.
    """

    name: str
    upstream: tuple[str, ...]
    pool: str | None = None
    cores: int = 1
    gpus: int = 0
    timeout: float | None = None
    retries: int = 2
    outputs: tuple[str, ...] = field(default=(), compare=False)


def stage_graph(root: Path) -> list[StageNode]:
    """Return DVC's stages with a command, each after all that it depends on.

    Args:
        root: the folder of `dvc.yaml`.

    Returns:
        The stages in topological order; those that could come in any order, by name.

    Raises:
        ValueError: if a stage's `meta:` is wrong.
    """
    import networkx as nx
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph  # edges: dependent → dependency
        commands = [stage for stage in graph if getattr(stage, "cmd", None)]
        by_name = {stage.name: stage for stage in commands}
        names = nx.DiGraph()
        names.add_nodes_from(by_name)
        for name, stage in by_name.items():
            names.add_edges_from(
                (other.name, name)
                for other in graph.successors(stage)
                if getattr(other, "cmd", None)
            )
        return [
            StageNode(
                name=name,
                upstream=tuple(sorted(names.predecessors(name))),
                outputs=tuple(str(out.def_path) for out in by_name[name].outs),
                **_hints(name, by_name[name].meta or {}).model_dump(),
            )
            for name in nx.lexicographical_topological_sort(names)
        ]


class _Hints(BaseModel):
    """A stage's `meta:`, as far as it is for the flows; other keys are other tools' business."""

    pool: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")
    cores: int = Field(default=1, ge=0)
    gpus: int = Field(default=0, ge=0)
    timeout: float | None = Field(default=None, gt=0)
    retries: int = Field(default=2, ge=0)


def _hints(stage: str, meta: dict[str, object]) -> _Hints:
    try:
        return _Hints.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"dvc.yaml: stages.{stage}.meta.{key}: {first['input']!r} is not allowed: {first['msg']}"
        ) from None


def changed(root: Path) -> set[str]:
    """Return the stages that DVC would look at again: changed themselves, or after a changed one.

    All others need no `dvc repro`; one look at the whole graph says so in about a second. While
    another DVC is at work there, which of them have changed cannot be said, and all are returned.

    Args:
        root: the folder of `dvc.yaml`.

    Returns:
        The stages' names.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            # From another folder DVC puts the path of dvc.yaml before a stage's name.
            found = {name.rsplit(":", 1)[-1] for name in repo.status()}
    except LockError:
        return {node.name for node in stage_graph(root)}
    reached: set[str] = set()
    for node in stage_graph(root):
        if node.name in found or not reached.isdisjoint(node.upstream):
            reached.add(node.name)
    return reached


def ancestors(nodes: list[StageNode], name: str) -> list[StageNode]:
    """Return all that a stage depends on, in the order of `nodes`.

    Args:
        nodes: the graph in topological order.
        name: the stage.

    Returns:
        The stages before it, without itself.
    """
    return [node for node in _with_upstream(nodes, [name]) if node.name != name]


def select(nodes: list[StageNode], targets: list[str]) -> list[StageNode]:
    """Return the targets and all that they depend on, in the order given; all, without targets.

    Args:
        nodes: the graph in topological order.
        targets: names of stages; "train" stands for every "train@…".

    Returns:
        The part of the graph that has to run.

    Raises:
        ValueError: if a target is no stage.
    """
    if not targets:
        return nodes
    wanted: set[str] = set()
    for target in targets:
        found = {n.name for n in nodes if n.name == target or n.name.split("@")[0] == target}
        if not found:
            names = ", ".join(dict.fromkeys(n.name.split("@")[0] for n in nodes))
            raise ValueError(
                f"targets: {target!r} is no stage, allowed: {names}, or one of `dvc stage list`"
            )
        wanted |= found
    return _with_upstream(nodes, wanted)


def _with_upstream(nodes: list[StageNode], names: Iterable[str]) -> list[StageNode]:
    wanted = set(names)
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= set(node.upstream)
    return [node for node in nodes if node.name in wanted]
