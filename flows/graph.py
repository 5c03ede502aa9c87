"""The stage graph, read from DVC: there is no second list of stages anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["StageNode", "select", "stage_graph"]


@dataclass(frozen=True)
class StageNode:
    """One stage of `dvc.yaml`, its matrix resolved.

    Args:
        name: its name in DVC, such as "train@digits-ve-0".
        upstream: the stages whose outputs it depends on.
        cores: how many CPU cores it claims (`meta: cores`), 1 if it says nothing.
        timeout: seconds after which it is stopped (`meta: timeout`), None for no deadline.
        retries: how often it is tried again (`meta: retries`).
    """

    name: str
    upstream: tuple[str, ...]
    cores: int = 1
    timeout: float | None = None
    retries: int = 0


def stage_graph(root: Path) -> list[StageNode]:
    """Return DVC's stages with a command, each after all that it depends on.

    Args:
        root: the folder of `dvc.yaml`.

    Returns:
        The stages in topological order; those that could come in any order, by name.
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
        nodes = []
        for name in nx.lexicographical_topological_sort(names):
            meta = by_name[name].meta or {}
            nodes.append(
                StageNode(
                    name=name,
                    upstream=tuple(sorted(names.predecessors(name))),
                    cores=int(meta.get("cores", 1)),
                    timeout=meta.get("timeout"),
                    retries=int(meta.get("retries", 0)),
                )
            )
        return nodes


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
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= set(node.upstream)
    return [node for node in nodes if node.name in wanted]
