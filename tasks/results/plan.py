"""What DVC has to run, because no cache and no remote holds what it makes."""

from __future__ import annotations

from contextlib import chdir, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

__all__ = ["restored"]


def restored(folder: Path, target: str, force: bool = False) -> list[str]:
    """Restore what can be had of all that a stage depends on, and return the stages that are left.

    `dvc repro --dry` cannot tell them apart: it does not know what earlier stages will have made.

    Args:
        folder: a workspace in which the stage `check` has run.
        target: the last stage.
        force: whether nothing is restored and all stages are left.

    Returns:
        The names of the stages that `dvc repro` will run, in order.
    """
    from dvc.repo import Repo, lock_repo  # half a second that few commands need
    from dvc.repo.reproduce import plan_repro
    from dvc.stage.cache import RunCacheNotSupported

    left: list[str] = []
    with chdir(folder), Repo() as repo, lock_repo(repo):  # DVC looks for dvc.yaml where it is
        remote = repo.config["core"].get("remote") is not None
        with suppress(RunCacheNotSupported):
            repo.stage_cache.pull(None)
        graph = repo.index.graph
        for stage in plan_repro(graph, repo.stage.collect(target)):
            before = {one.addressing for one in graph.successors(stage)}
            runs = bool(before & set(left)) or (force and stage.cmd is not None)
            if runs or (stage.changed() and not _had(repo, stage, remote)):
                left.append(stage.addressing)
    return left


def _had(repo: Repo, stage: Stage, remote: bool) -> bool:
    """Return whether a stage was restored, in the two ways in which `dvc repro --pull` tries it."""
    from dvc.exceptions import DvcException

    with suppress(DvcException):
        if remote and not stage.changed(allow_missing=True):
            repo.pull(stage.addressing)
        else:
            repo.stage_cache.restore(stage, pull=remote)
        return True
    return False
