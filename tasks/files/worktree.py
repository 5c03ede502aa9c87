"""Worktrees: a commit in a folder of its own, which shares DVC's cache and unfinished work.

A worktree beside a person's workspace lies in the workspace's `.scoremodel/worktrees`. One of a
repository elsewhere lies in `$SCOREMODEL_WORKSPACES` (`~/.scoremodel/workspaces` by default), in the
repository's own folder there, its home, beside the mirror that it is a worktree of. `.scoremodel` in a
worktree is a link to what they share, so a training whose worker died goes on in the next one's.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from configobj import ConfigObj
from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.files.dvc import StoppedError
from tasks.files.git import GitError, git
from tasks.files.graph import checkout
from tasks.files.layout import LEDGER

__all__ = [
    "beside",
    "default_remote",
    "fetch",
    "link_sources",
    "of_repository",
    "require_unmodified",
    "verify_remote",
    "workspaces",
]

WORKTREES = "worktrees"
_STALE = 600.0  # seconds: git holds its locks for a moment
_LINKS = "reflink,hardlink,copy"


def workspaces() -> Path:
    """Return the folder in which the mirrors of repositories elsewhere lie, and their worktrees."""
    given = os.environ.get("SCOREMODEL_WORKSPACES")
    return Path(given or "~/.scoremodel/workspaces").expanduser().absolute()


@contextmanager
def beside(
    root: Path,
    commit: str,
    name: str = "",
    *,
    say: Callable[[str], object] = print,
    stop: threading.Event | None = None,
) -> Iterator[Path]:
    """Yield a worktree of a workspace's own repository, with its cache, remote and sources.

    Args:
        root: the workspace.
        commit: what is checked out.
        name: the folder's; one that is free by default. Who else has one of this name ends it first.
        say: is told about such a wait.
        stop: ends it when it is set.

    Yields:
        The folder, which holds what DVC's cache has of the commit's outputs; it is removed afterwards.

    Raises:
        GitError: if git refuses.
    """
    from dvc.config import Config

    home = (root / ".scoremodel").resolve()
    with _worktree(root, home, commit, name, say, stop) as folder:
        there = Config(str(root / ".dvc"))
        with _local_config(folder, there["cache"].get("dir") or root / ".dvc/cache") as local:
            if (default := there["core"].get("remote")) is not None:
                # By a name of its own: by this one the commit may have a remote of another kind.
                local["remote"]["workspace"] = there["remote"][default]  # its path is absolute
                local["core"]["remote"] = "workspace"
        link_sources(root, folder)
        checkout(folder)
        yield folder


def link_sources(root: Path, folder: Path) -> None:
    """Link what stages read beside git and DVC: downloads, data nobody tracks, an extractor's file.

    And published models, whose checksums `params.yaml` has: no stage checks them out.

    Args:
        root: the workspace.
        folder: its worktree, whose `params.yaml` says which extractor.
    """
    params = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    extractor = params.get("evaluation", {}).get("extractor", {}).get("path")
    given = (*root.glob("data/raw/*"), *root.glob("data/samples/*/*"))
    sources = [root / "data/torchvision", *(path for path in given if path.is_dir())]  # no .dvc
    sources += _files_of_sources(root, folder)
    sources += [root / extractor] if extractor and not Path(extractor).is_absolute() else []
    published = [path for path in (root / "data/pretrained").glob("*") if path.is_dir()]
    for source in (*sources, *published):
        there = folder / source.relative_to(root)
        tracked = Path(f"{there}.dvc").exists() and source not in published
        if source.exists() and not there.exists() and not tracked:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(source.resolve())


def _files_of_sources(root: Path, folder: Path) -> list[Path]:
    """Return what a worktree's `source.yaml` files name as `path`, in the workspace."""
    found = []
    for file in (folder / "data/raw").glob("*/source.yaml"):
        with suppress(YAMLError, UnicodeDecodeError):  # which check will say
            said = YAML(typ="safe", pure=True).load(file)
            path = said.get("path") if isinstance(said, dict) else None
            if isinstance(path, str):
                there = root / file.parent.relative_to(folder) / path
                found.append(Path(os.path.normpath(there)))
    return [p for p in found if p.is_relative_to(root) and os.path.exists(p)]  # noqa: PTH110 (names of any length)


@contextmanager
def of_repository(
    repository: str, *, commit: str = "", branch: str = "", remote: str | None = None
) -> Iterator[Path]:
    """Yield a worktree of a repository elsewhere, of which this machine keeps a mirror.

    Args:
        repository: its address.
        commit: what is checked out; or
        branch: whose newest commit is.
        remote: address of the DVC remote, None for the one that the commit names.

    Yields:
        The folder, which is removed afterwards.

    Raises:
        ValueError: if the repository cannot be reached, or lacks the commit or the branch.
    """
    last = re.sub(r"[^A-Za-z0-9]+", "-", repository.rstrip("/").rsplit("/", 1)[-1])[:30].strip("-")
    home = workspaces() / f"{last}-{hashlib.sha256(repository.encode()).hexdigest()[:8]}"
    mirror = home / "mirror.git"
    mirror.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with FileLock(home / "mirror.lock"):  # two fetches would be in each other's way
            for left in mirror.rglob("*.lock"):  # git's, of a machine that died
                if "worktrees" not in left.parts and time.time() - left.stat().st_mtime > _STALE:
                    left.unlink(missing_ok=True)
            if not (mirror / "HEAD").exists():
                git(mirror, "init", "--quiet", "--bare")
            git(mirror, "config", "remote.origin.url", repository)
            wanted = _fetched(mirror, repository, commit, branch)
            # Before the mirror is free: who cleans up sees that somebody is at work.
            folder = stack.enter_context(_worktree(mirror, home, wanted))
        with _local_config(folder, home / "cache") as local:
            if (url := remote or _relative_remote(folder, repository)) is not None:
                local["core"]["remote"] = "flow"
                local["remote"]["flow"] = {"url": url}
        verify_remote(folder)
        yield folder


def fetch(repository: Path) -> None:
    """Bring a mirror's branches up to date, as refs/remotes/origin."""
    branches = "+refs/heads/*:refs/remotes/origin/*"
    git(repository, "fetch", "--quiet", "--prune", "--force", "origin", branches)


def _fetched(mirror: Path, repository: str, commit: str, branch: str) -> str:
    """Return a commit that the mirror has, after fetching it if it had not."""

    def found() -> str:
        name = commit or f"refs/remotes/origin/{branch}"
        with suppress(GitError):
            return git(mirror, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        return ""

    if commit and (wanted := found()):
        return wanted
    fetch(mirror)
    if commit and not found():
        with suppress(GitError):  # no branch holds it; many servers give it all the same
            git(mirror, "fetch", "--quiet", "origin", commit)
    if wanted := found():
        return wanted
    what = f"commit {commit}; push it" if commit else f"branch {branch!r}"
    raise ValueError(f"{repository}: has no {what}")


@contextmanager
def _worktree(
    repository: Path,
    home: Path,
    commit: str,
    name: str = "",
    say: Callable[[str], object] = print,
    stop: threading.Event | None = None,
) -> Iterator[Path]:
    place = home / WORKTREES
    place.mkdir(parents=True, exist_ok=True)
    folder = place / (name or secrets.token_hex(4))
    # Held while it is used, so that whoever cleans up knows it; two that want one name take turns.
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waits for who holds {lock.lock_file}")
        try:
            lock.acquire(cancel_check=stop.is_set if stop else None)
        except Timeout:
            raise StoppedError(f"stopped while somebody else held {lock.lock_file}") from None
    try:
        if not name:
            _remove_abandoned(repository, place)
        _remove(repository, folder)  # what a killed one left
        git(repository, "worktree", "add", "--quiet", "--force", "--detach", str(folder), commit)
        (folder / ".scoremodel").symlink_to(home)
        yield folder
    finally:
        _remove(repository, folder)
        if not name:  # somebody may be waiting for one that has a name
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _remove_abandoned(repository: Path, place: Path) -> None:
    """Remove what killed runs have left of worktrees without a name, which nobody asks for again."""
    for path in place.glob("*.lock"):
        if re.fullmatch(r"[0-9a-f]{8}", path.stem):
            with suppress(Timeout), FileLock(path, timeout=0):
                _remove(repository, path.with_suffix(""))
                path.unlink(missing_ok=True)


def _remove(repository: Path, folder: Path) -> None:
    if folder.exists():
        with suppress(GitError):
            git(repository, "worktree", "remove", "--force", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        git(repository, "worktree", "prune")


@contextmanager
def _local_config(folder: Path, cache: Path | str) -> Iterator[Any]:
    """Yield `.dvc/config.local` of a worktree to be edited; the cache is shared, all else its own."""
    from dvc.config import Config

    with Config(str(folder / ".dvc")).edit("local") as local:
        local["cache"] |= {"dir": str(cache), "type": _LINKS}
        # DVC's notes of a folder, which would outlive it.
        local["core"]["site_cache_dir"] = str(folder / ".dvc/tmp/site")
        yield local


def _relative_remote(folder: Path, repository: str) -> str | None:
    """Return where the folder that a commit names relative to itself is, None if it names none."""
    committed = ConfigObj(str(folder / ".dvc" / "config"), encoding="utf-8")
    name = committed.get("core", {}).get("remote")
    url = str(committed.get(f'remote "{name}"', {}).get("url", ""))
    if not url or "://" in url or Path(url).is_absolute():
        return None
    origin = Path(repository)
    if not (origin / ".dvc").is_dir():
        raise ValueError(
            f"remote: the commit's DVC remote {name!r} is a folder relative to a workspace ({url}), "
            "which a clone of another machine does not have; allowed: an address that is the same "
            "from everywhere, in .dvc/config or as the parameter remote"
        )
    return str((origin / ".dvc" / url).resolve())


def default_remote(root: Path) -> tuple[bool, str | None]:
    """Return whether a workspace has a default DVC remote, and its address if its commit does not say it.

    Args:
        root: the workspace.

    Returns:
        Whether there is one; its address, None if clones find it in the commit's `.dvc/config`.
    """
    from dvc.config import Config

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    if name is None:
        return False, None
    url = str(config["remote"][name]["url"])
    committed = config.load_one("repo")
    same = committed["core"].get("remote") == name
    known = same and committed["remote"].get(name, {}).get("url") == url
    # DVC has made a folder absolute; what the commit says may be relative, to a folder elsewhere.
    return True, None if known and "://" in url else url


def verify_remote(root: Path) -> bool:
    """See to it that what is fetched from the default remote is hashed again.

    Without it DVC takes an object storage's word, and a damaged object would enter the cache as a
    good one. The setting goes into `.dvc/config.local`, which is this machine's.

    Args:
        root: a workspace.

    Returns:
        Whether it was not so before.
    """
    from dvc.config import Config

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    if name is None or config["remote"][name].get("verify"):
        return False
    with config.edit("local") as local:
        local["remote"].setdefault(name, {})["verify"] = True
    return True


def require_unmodified(root: Path, outputs: Collection[str]) -> None:
    """Refuse a workspace with modified and untracked files that no run makes: workers have commits only.

    Args:
        root: the workspace.
        outputs: what its stages make.

    Raises:
        ValueError: with the files' names.
    """
    made = ("dvc.lock", str(LEDGER), *outputs)
    listed = git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    paths = [
        entry[3:]
        for entry in listed.split("\0")
        if entry and not any(Path(entry[3:]).is_relative_to(one) for one in made)
    ]
    if paths:
        shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
        raise ValueError(
            f"executor: 'workers' is not allowed while {shown} differ from the commit, which is all "
            "that workers can check out; commit them (git add, git commit), or run with "
            "executor 'local'"
        )
