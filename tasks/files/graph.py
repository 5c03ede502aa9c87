"""The stage graph, read from DVC, and what DVC knows of its stages: there is no second list of stages."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from scoremodel.io.files import atomic_path
from tasks.files.documents import read_yaml
from tasks.files.hashes import content_hash, file_hash
from tasks.files.lock import read_lock

__all__ = [
    "CHECK",
    "StageNode",
    "changed",
    "checkout",
    "entries",
    "identities",
    "mistakes",
    "remember",
    "select",
    "stage_graph",
    "try_restore",
    "write_entries",
]

CHECK = "check"
"""The stage that says what all others depend on."""

_alone = threading.Lock()  # DVC as a library is not made for threads


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
        helped: whether other processes may do parts of its work (`meta: helped`), by its command and
            `--helps`.
        cmd: its command.
        deps: the paths of its dependencies, relative to `dvc.yaml`.
        needs: the paths of the outputs in DVC's cache in which they lie.
        outputs: the paths of its declared outputs.
    """

    name: str
    upstream: tuple[str, ...]
    pool: str | None = None
    cores: int = 1
    gpus: int = 0
    timeout: float | None = None
    retries: int = 2
    helped: bool = False
    cmd: str = field(default="", compare=False)
    deps: tuple[str, ...] = field(default=(), compare=False)
    needs: tuple[str, ...] = field(default=(), compare=False)
    outputs: tuple[str, ...] = field(default=(), compare=False)


@contextmanager
def _repo(root: Path) -> Iterator[Any]:
    from dvc.repo import Repo

    with _alone, Repo(str(root), _wait_for_lock=True) as repo:
        yield repo


def stage_graph(root: Path) -> list[StageNode]:
    """Return DVC's stages with a command, each after all that it depends on.

    Args:
        root: the folder of `dvc.yaml`.

    Returns:
        The stages in topological order; those that could come in any order, by name.

    Raises:
        ValueError: if a stage's `meta:` is wrong, or `params.yaml` does not give a graph.
    """
    from dvc.exceptions import DvcException

    try:
        return _stage_graph(root)
    except DvcException as error:
        for path, read in (("dvc.yaml", _pipeline), ("dvc.lock", read_lock)):
            if (root / path).exists():
                read(root / path)
        raise ValueError(mistakes(root) or " ".join(str(error).split())) from None


def _pipeline(path: Path) -> Any:
    return read_yaml(path, path, _Pipeline, f"restore it from git: git restore {path.name}")


class _Pipeline(TypedDict):
    stages: dict[str, dict[str, Any]]


def mistakes(root: Path) -> str:
    """Return what the workspace's own code says against its `params.yaml`, a line for each mistake.

    Args:
        root: the workspace.

    Returns:
        The lines; none if it is valid.
    """
    command = [sys.executable, "-m", "tasks.check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stderr.strip().removeprefix("error: ") if done.returncode else ""


def _stage_graph(root: Path) -> list[StageNode]:
    import networkx as nx

    with _repo(root) as repo:
        graph = repo.index.graph  # edges: dependent → dependency
        by_name = {stage.name: stage for stage in graph if getattr(stage, "cmd", None)}
        names = nx.DiGraph()
        names.add_nodes_from(by_name)
        cached: dict[str, list[str]] = {}
        for name, stage in by_name.items():
            before = list(graph.successors(stage))
            names.add_edges_from((one.name, name) for one in before if one.name in by_name)
            # Whole outputs: a stage may read more of one than decides what it makes.
            cached[name] = [
                str(out.def_path)
                for one in before
                for out in one.outs
                if out.use_cache and any(_related(dep.fs_path, out.fs_path) for dep in stage.deps)
            ]
        return [
            StageNode(
                name=name,
                upstream=tuple(sorted(names.predecessors(name))),
                cmd=str(by_name[name].cmd),
                deps=tuple(str(dep.def_path) for dep in by_name[name].deps),
                needs=tuple(cached[name]),
                outputs=tuple(str(out.def_path) for out in by_name[name].outs),
                **_hints(name, by_name[name].meta or {}).model_dump(),
            )
            for name in nx.lexicographical_topological_sort(names)
        ]


def _related(dependency: str, output: str) -> bool:
    one, other = Path(dependency), Path(output)
    return one.is_relative_to(other) or other.is_relative_to(one)


class _Hints(BaseModel):
    """A stage's `meta:`, as far as it is for the flows; other keys are other tools' business."""

    pool: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")
    cores: int = Field(default=1, ge=0)
    gpus: int = Field(default=0, ge=0)
    timeout: float | None = Field(default=None, gt=0)
    retries: int = Field(default=2, ge=0)
    helped: bool = False


def _hints(stage: str, meta: dict[str, object]) -> _Hints:
    try:
        return _Hints.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"dvc.yaml: stages.{stage}.meta.{key}: {first['input']!r} is not allowed: {first['msg']}"
        ) from None


def changed(root: Path, nodes: list[StageNode]) -> set[str]:
    """Return the stages that DVC would look at again: changed themselves, or after a changed one.

    All others need no `dvc repro`; one look at the whole graph says so in about a second. While
    another DVC is at work there, which of them have changed cannot be said, and all are returned.

    Args:
        root: the folder of `dvc.yaml`.
        nodes: its graph.

    Returns:
        The stages' names.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with _alone, Repo(str(root)) as repo:
            # From another folder DVC puts the path of dvc.yaml before a stage's name.
            found = {name.rsplit(":", 1)[-1] for name in repo.status()}
    except LockError:
        return {node.name for node in nodes}
    for node in nodes:
        if not found.isdisjoint(node.upstream):
            found.add(node.name)
    return found


def identities(root: Path, nodes: list[StageNode]) -> dict[str, str]:
    """Return for each stage a hash of all that decides what it makes, in workspaces of one commit's data.

    Args:
        root: the folder of `dvc.yaml`, in which `check` has run.
        nodes: its graph.

    Returns:
        Name → hash.
    """
    resolved = tuple(out for node in nodes if node.name == CHECK for out in node.outputs)
    made: dict[str, str] = {}
    for node in nodes:
        said = [
            (dep, file_hash(root / dep))
            for dep in node.deps
            if any(Path(dep).is_relative_to(out) for out in resolved)
        ]
        before = [made[name] for name in node.upstream if name != CHECK]
        made[node.name] = content_hash({"cmd": node.cmd, "said": said, "before": before})
    return made


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


def entries(root: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what `dvc.lock` says of some stages, as far as it knows them."""
    path = root / "dvc.lock"
    stages = read_lock(path)["stages"] if path.exists() else {}
    return {name: stages[name] for name in names if name in stages}


def write_entries(root: Path, found: dict[str, Any]) -> None:
    """Let `dvc.lock` say of some stages what it says elsewhere.

    Args:
        root: the folder of `dvc.yaml`.
        found: stage → its entry.
    """
    from dvc.utils.serialize import dump_yaml

    path = root / "dvc.lock"
    with _repo(root) as repo, repo.lock:
        content: dict[str, Any] = (
            read_lock(path) if path.exists() else {"schema": "2.0", "stages": {}}
        )
        content["stages"] |= found
        with atomic_path(path) as temporary:
            dump_yaml(str(temporary), content)


def checkout(root: Path) -> None:
    """Put into a workspace what DVC's cache has of its outputs; the rest is made or fetched later."""
    from dvc.exceptions import DvcException

    with _repo(root) as repo, suppress(DvcException):
        repo.checkout(force=True, allow_missing=True)


def remember(root: Path, stage: str) -> None:
    """Let DVC's run-cache here know a stage that another machine has run, whose outputs have come."""
    with _repo(root) as repo, repo.lock, chdir(root):  # DVC's run-cache looks from where it is
        found = repo.stage.load_one(str(root / "dvc.yaml"), stage)
        repo.stage_cache.save(found)


def try_restore(root: Path, stage: str) -> bool:
    """Restore a stage from DVC's cache and run-cache; run nothing.

    Args:
        root: the folder of `dvc.yaml`.
        stage: the stage's name; what it depends on is there.

    Returns:
        Whether its outputs are there now, and `dvc.lock` says so.
    """
    from dvc.exceptions import DvcException

    with _repo(root) as repo, repo.lock, chdir(root):  # DVC's run-cache looks from where it is
        found = repo.stage.load_one(str(root / "dvc.yaml"), stage)
        try:
            found.remove_outs(ignore_remove=False, force=False)  # as DVC does before it runs one
            repo.stage_cache.restore(found)
        except DvcException:  # there is no such run, or not all of what it made
            return False
        found.save()
        found.commit()
        found.dump(update_pipeline=False)
        return True
