"""What runs have left and nobody needs any more, listed or removed.

Whoever uses something holds a lock beside it: what is locked stays, whatever its age.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from tasks.files.cache import unneeded
from tasks.files.git import git
from tasks.files.worktree import workspaces
from tasks.params.errors import ParamsError
from tasks.params.read import read_yaml
from tasks.params.schema import StateFolder
from tasks.results.branch import KEPT, LENT

__all__ = ["clean"]

_EXPERIMENTS = "refs/exps/[0-9a-f][0-9a-f]/*/*"  # the others there are DVC's own


class _Home(NamedTuple):
    """Where runs leave things: a workspace, or a repository elsewhere (`tasks.files.worktree`)."""

    folder: Path
    states: Path
    repository: Path
    cache: Path


class _Thing(NamedTuple):
    """Something that may be removed, when it was changed last, and the bytes that this frees."""

    kind: str
    place: Path | str
    changed: float
    size: int
    remove: Callable[[], object]
    lock: Path | None = None


def _homes(root: Path) -> Iterator[_Home]:
    params = root / "params.yaml"
    content = read_yaml(params)
    try:  # a folder that is not the states' own would be emptied
        states = root / TypeAdapter(StateFolder).validate_python(content["checkpoints"]["folder"])
    except (KeyError, TypeError, ValidationError):
        raise ParamsError(
            f"{params}: checkpoints.folder: is missing or not allowed; python -m tasks.check says what is"
        ) from None
    yield _Home((root / ".scoremodel").resolve(), states, root, root / ".dvc/cache")
    for mirror in sorted(workspaces().glob("*/mirror.git")):
        home = mirror.parent
        yield _Home(home, home / "state", mirror, home / "cache")


@contextmanager
def _held(lock: Path | None, create: bool = False) -> Iterator[bool]:
    """Yield whether a lock is free, and hold it."""
    if lock is None or not (create or lock.exists()):
        yield True
        return
    try:
        with FileLock(lock, timeout=0):
            yield True
    except Timeout:
        yield False


def _left(home: _Home) -> Iterator[_Thing]:
    """Yield unfinished states, worktrees, rounds of comparisons, and the locks of what is gone."""
    places = (home.states, home.folder / "worktrees", home.folder / "compare")
    for kind, place in zip(("state", "worktree", "comparison"), places, strict=True):
        for path in sorted(place.glob("*")):
            if path.suffix != ".lock":
                lock = path.with_name(f"{path.name.removesuffix('.json')}.lock")
                remove = path.unlink if path.is_file() else partial(shutil.rmtree, path)
                yield _Thing(kind, path, *_measured(path), remove, lock)
            elif path.exists() and not any(path.with_suffix(end).exists() for end in ("", ".json")):
                yield _Thing("lock", path, path.stat().st_mtime, 0, lambda: None, path)


def _measured(path: Path) -> tuple[float, int]:
    """Return when anything in a file or folder was changed last, and the bytes that it alone has."""
    try:
        found = [one.lstat() for one in (path, *path.rglob("*"))]
    except FileNotFoundError:  # somebody is at work in it
        return time.time(), 0
    size = sum(one.st_size for one in found if one.st_nlink == 1)
    return max(one.st_mtime for one in found), size


def _references(home: _Home, below: str) -> Iterator[_Thing]:
    what = "--format=%(committerdate:unix) %(objectname) %(refname)"
    for line in git(home.repository, "for-each-ref", what, below).splitlines():
        date, commit, name = line.split(" ", 2)
        remove = partial(git, home.repository, "update-ref", "-d", name, commit)
        yield _Thing("experiment", name, float(date), 0, remove)


def _unneeded(home: _Home, before: float, gone: list[str]) -> Iterator[_Thing]:
    """Yield what is old in DVC's cache and needed by no commit, and by no worktree as it is."""
    files = ((path, path.stat()) for path in unneeded(home.repository, home.cache, gone))
    found = {path: stat for path, stat in files if stat.st_mtime < before}
    if found:
        newest = max(stat.st_mtime for stat in found.values())
        size = sum(stat.st_size for stat in found.values())
        remove: Callable[[], object] = partial(list, map(Path.unlink, found))
        yield _Thing("cache", f"{home.cache}: {len(found)} files", newest, size, remove)


@contextmanager
def _idle(home: _Home) -> Iterator[str]:
    """Yield why experiments and cache have to stay, "" if they need not, and keep others out."""
    for lock in (*home.folder.glob("worktrees/*.lock"), *home.folder.glob("compare/*.lock")):
        with _held(lock) as free:
            if not free:
                yield f"a run holds {lock}"
                return
    if home.repository.name == "mirror.git":
        with FileLock(home.folder / "mirror.lock"):
            yield ""
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    root = str(home.repository)
    try:
        with (
            Repo(root) as repo,
            repo.lock,
            rwlock(repo.tmp_dir, repo.fs, "clean", [], [root], False),
        ):
            cache = Path(repo.cache.local.path).resolve()
            yield "" if cache.is_relative_to(home.cache) else f"{cache} may be others' cache too"
    except DvcException as error:  # such as: a stage is at work
        yield " ".join(str(error).split())


def _deal(thing: _Thing, yes: bool) -> int:
    """Tell of a thing, and remove it if that is asked for; return the bytes."""
    days = (time.time() - thing.changed) / 86400
    said = f"{thing.kind:<11}{days:7.1f} d {thing.size / 1e6:10.2f} MB  {thing.place}"
    with _held(thing.lock, create=yes) as free:
        print(said if free else f"{said}: in use, left alone")
        if yes and free:
            thing.remove()
            if thing.lock is not None:
                thing.lock.unlink(missing_ok=True)
        return thing.size if free else 0


def _clean(home: _Home, before: float, yes: bool) -> Iterator[int]:
    for thing in _left(home):
        if thing.changed < before:
            yield _deal(thing, yes)
    if yes:
        git(home.repository, "worktree", "prune")
    with _idle(home) as why:
        if why:
            print(f"{home.folder}: experiments and cache are left alone: {why}")
        else:
            found = (*_references(home, _EXPERIMENTS), *_references(home, LENT))
            old = [one for one in found if one.changed < before]
            for thing in (*old, *_unneeded(home, before, [str(one.place) for one in old])):
                yield _deal(thing, yes)
    for thing in _references(home, KEPT):
        print(f"not yet pushed, kept: {thing.place} in {home.repository}")


def clean(root: Path, before: float, yes: bool) -> list[int]:
    """List what a workspace, and repositories that this machine works on, have had for long; or remove it.

    Args:
        root: the workspace.
        before: the time, in seconds since 1970, since which nothing of it was changed.
        yes: whether to remove it.

    Returns:
        The bytes of each thing.
    """
    return [size for home in _homes(root) for size in _clean(home, before, yes)]
