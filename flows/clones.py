"""Workspaces of a flow's own: clones at an exact commit, kept between runs, never a person's folder.

They lie in `$SCOREMODEL_WORKSPACES` (`~/.scoremodel/workspaces` by default), one folder for each
repository. In it are numbered clones, of which a run takes the first that is free, and what they
share: DVC's cache, and the state of unfinished work, so that a training whose worker died goes on
in whichever clone the next one takes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configobj import ConfigObj
from filelock import FileLock, Timeout

from flows.graph import StageNode
from tasks.files.addresses import cleaned
from tasks.files.layout import LEDGER

__all__ = [
    "GitError",
    "Remote",
    "clone",
    "commit_results",
    "default_remote",
    "git",
    "head",
    "modified",
    "require_results_branch",
    "require_unmodified",
    "verify_remote",
    "workspaces",
]

_RESULTS = ("dvc.lock", "results")
_EMAIL = "scoremodel@localhost"  # of commits that flows make
# Neither helper programs nor a question that nobody answers.
_ENVIRONMENT = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_TERMINAL_PROMPT": "0"}


class GitError(ValueError):
    """Git has refused; its own line."""


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints.

    Args:
        folder: the repository.
        *arguments: git's own, which reach no shell.

    Returns:
        Its standard output.

    Raises:
        GitError: with git's own line, if it fails.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | _ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next(
            (line for line in lines if line.startswith("fatal:")), (lines or ["failed"])[-1]
        )
        raise GitError(f"git {arguments[0]}: {cleaned(said.removeprefix('fatal: '))}")
    return done.stdout


def head(folder: Path) -> str:
    """Return the commit that is checked out."""
    return git(folder, "rev-parse", "--verify", "HEAD").strip()


def workspaces() -> Path:
    """Return the folder in which all clones lie."""
    given = os.environ.get("SCOREMODEL_WORKSPACES")
    return Path(given or "~/.scoremodel/workspaces").expanduser().absolute()


@dataclass(frozen=True)
class Remote:
    """Where clones find a DVC remote.

    Args:
        url: an address that is the same from everywhere; None for the one that the commit itself
            names in `.dvc/config`.
    """

    url: str | None


def default_remote(root: Path) -> Remote | None:
    """Return the default DVC remote of a workspace, None if it has none."""
    from dvc.config import Config

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    if name is None:
        return None
    url = str(config["remote"][name]["url"])
    if "://" not in url:
        # DVC has made it absolute; what the commit says may be relative, to a folder elsewhere.
        return Remote(url)
    committed = config.load_one("repo")
    there = committed["remote"].get(name, {})
    known = committed["core"].get("remote") == name and there.get("url") == url
    return Remote(None if known else url)


def modified(root: Path, nodes: list[StageNode]) -> list[str]:
    """Return the modified and untracked files that no run makes, and so no other machine has.

    Args:
        root: a workspace.
        nodes: its graph.

    Returns:
        Their paths; `dvc.lock`, declared outputs and the ledger are left out.
    """
    made = ["dvc.lock", str(LEDGER), *(output for node in nodes for output in node.outputs)]
    listed = git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    paths = [entry[3:] for entry in listed.split("\0") if entry]
    return [
        path for path in paths if not any(path == one or path.startswith(f"{one}/") for one in made)
    ]


def require_unmodified(root: Path, nodes: list[StageNode]) -> None:
    """Refuse a workspace whose files workers cannot have.

    Args:
        root: a workspace.
        nodes: its graph.

    Raises:
        ValueError: one line that names the files and the two ways out.
    """
    paths = modified(root, nodes)
    if paths:
        shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
        raise ValueError(
            f"executor: 'workers' is not allowed while {shown} differ from the commit, which is all "
            "that workers can check out; commit them (git add, git commit), or run with "
            "executor 'local'"
        )


@contextmanager
def clone(
    repository: str,
    *,
    commit: str | None = None,
    branch: str | None = None,
    remote: str | None = None,
    purpose: str = "stages",
) -> Iterator[Path]:
    """Yield a clone of `repository` at an exact commit, which is this process's alone meanwhile.

    Args:
        repository: where it is cloned from.
        commit: what is checked out; or
        branch: whose newest commit is.
        remote: address of the DVC remote, None for the one that the commit names.
        purpose: clones for one purpose are not taken for another.

    Yields:
        Its folder. Untracked files that git does not ignore are gone; artifacts and cache stay.

    Raises:
        ValueError: if the repository cannot be reached, or lacks the commit or the branch.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", repository.rstrip("/").rsplit("/", 1)[-1])[:30].strip("-")
    place = workspaces() / f"{name}-{hashlib.sha256(repository.encode()).hexdigest()[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    lock, folder = _free(place, purpose)
    try:
        if not (folder / ".git").exists():
            shutil.rmtree(folder, ignore_errors=True)
            half = folder.with_name(f"{folder.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            git(place, "clone", "--quiet", "--no-checkout", "--", repository, str(half))
            half.rename(folder)
        _forget_locks(folder)
        _check_out(folder, repository, commit, branch)
        _share(place, folder)
        _configure(place, folder, repository, remote)
        yield folder
    finally:
        lock.release()


def _free(place: Path, purpose: str) -> tuple[FileLock, Path]:
    number = 0
    while True:
        lock = FileLock(place / f"{purpose}-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            number += 1
        else:
            return lock, place / f"{purpose}-{number}"


def _fetch(folder: Path) -> None:
    branches = "+refs/heads/*:refs/remotes/origin/*"
    git(folder, "fetch", "--quiet", "--prune", "--force", "origin", branches)


def _check_out(folder: Path, repository: str, commit: str | None, branch: str | None) -> None:
    _fetch(folder)
    name = commit or f"refs/remotes/origin/{branch}"
    try:
        wanted = git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    except ValueError:
        what = f"commit {commit}; push it" if commit else f"branch {branch!r}"
        raise ValueError(f"{repository}: has no {what}") from None
    try:
        now = head(folder)
    except ValueError:
        now = ""
    changed = git(folder, "status", "--porcelain", "--", ".", *(f":!{path}" for path in _RESULTS))
    if now != wanted or changed or not (folder / "dvc.yaml").exists():
        git(folder, "checkout", "--quiet", "--force", "--detach", wanted)
        git(folder, "clean", "-fdq", f"--exclude={LEDGER}")  # rows that nobody has committed yet


def _forget_locks(folder: Path) -> None:
    """Drop the locks of git and DVC processes that died in this clone.

    Whoever holds the clone's own lock is alone in it. DVC asks whether the numbers of processes are
    alive, and in another container's numbers they may be somebody else's; on Linux a killed flow's
    DVC is gone too.
    """
    for lock in (folder / ".git").rglob("*.lock"):
        lock.unlink(missing_ok=True)
    if sys.platform.startswith("linux"):
        (folder / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)


def _share(place: Path, folder: Path) -> None:
    """Let all clones of a repository have one place for unfinished work."""
    (place / "state").mkdir(exist_ok=True)
    own = folder / ".scoremodel"
    if not own.is_symlink():
        shutil.rmtree(own, ignore_errors=True)
        own.symlink_to(Path("..", "state"))
    # .gitignore names a folder, and a link is none.
    exclude = folder / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text("/.scoremodel\n", encoding="utf-8")


def _configure(place: Path, folder: Path, repository: str, remote: str | None) -> None:
    from dvc.config import Config

    config = Config(str(folder / ".dvc"))
    with config.edit("local") as local:
        local["cache"]["dir"] = str(place / "cache")
        local["core"].pop("remote", None)
        local["remote"].pop("flow", None)
        url = remote or _beside(folder, repository)
        if url is not None:
            local["core"]["remote"] = "flow"
            local["remote"]["flow"] = {"url": url}
    verify_remote(folder)


def _beside(folder: Path, repository: str) -> str | None:
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


def require_results_branch(root: Path, branch: str) -> str:
    """Refuse a branch that has other people's commits, whose files a run's results would replace.

    Args:
        root: the clone, at the commit that is run.
        branch: the branch for results.

    Returns:
        Its newest commit, empty if it is new.

    Raises:
        GitError: if the repository cannot be reached.
        ValueError: one line that says what is allowed.
    """
    _fetch(root)
    there = f"refs/remotes/origin/{branch}"
    try:
        tip = git(root, "rev-parse", "--verify", "--quiet", f"{there}^{{commit}}").strip()
    except GitError:
        return ""
    if git(root, "log", "-1", "--format=%ce", tip).strip() == _EMAIL:
        return tip
    try:
        git(root, "merge-base", "--is-ancestor", tip, head(root))
    except GitError:
        raise ValueError(
            f"commit_to: {branch!r} has commits that are not in the commit that is run, allowed: a "
            "new branch, or one to which only flows commit"
        ) from None
    return tip


def commit_results(root: Path, branch: str, message: str) -> str | None:
    """Commit `dvc.lock` and the results of a clone, and push them to a branch of its origin.

    The branch gets the commit that was run, with these results on top, and all rows of the ledger
    that it had before. Nobody's work is overwritten: the branch must be one to which only flows
    commit, or lie behind the commit that was run; if it has moved, it is tried again.

    Args:
        root: the clone.
        branch: the branch's name; made if it is new.
        message: of the commit.

    Returns:
        The commit, None if there was nothing new.

    Raises:
        GitError: if git refuses, with its line.
        ValueError: if the branch has commits of others.
    """
    identity = ("-c", "user.name=scoremodel", "-c", f"user.email={_EMAIL}")
    ran = head(root)
    for attempt in range(3):
        before = require_results_branch(root, branch)
        parents = [ran]
        if before and before != ran:
            rows = git(root, "ls-tree", "-r", "--name-only", before, f"{LEDGER}/").splitlines()
            missing = [row for row in rows if row.endswith(".json") and not (root / row).exists()]
            if missing:
                git(root, "checkout", "--quiet", before, "--", *missing)
            parents.append(before)
        git(root, "add", "--all", "--", *(path for path in _RESULTS if (root / path).exists()))
        tree = git(root, "write-tree").strip()
        # New rows that stayed staged would be removed by the next commit's checkout.
        git(root, "reset", "--quiet")
        if tree == git(root, "rev-parse", f"{before or ran}^{{tree}}").strip():
            return None
        made = git(
            root, *identity, "commit-tree", tree, *(part for one in parents for part in ("-p", one)),
            "-m", message,
        ).strip()  # fmt: skip
        try:
            git(root, "push", "--quiet", "origin", f"{made}:refs/heads/{branch}")
        except ValueError:
            if attempt == 2:
                raise
        else:
            return made
    raise AssertionError("unreachable")
