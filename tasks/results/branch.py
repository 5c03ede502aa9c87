"""What a run has measured, committed: to a branch for results, or kept beside the repository until then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.files.git import GitError, git, head
from tasks.files.layout import LEDGER
from tasks.files.worktree import fetch

__all__ = [
    "IDENTITY",
    "KEPT",
    "LENT",
    "RESULTS",
    "commit_results",
    "lent",
    "require_results_branch",
]

KEPT = "refs/scoremodel/kept"
"""What no branch has yet."""
LENT = "refs/scoremodel/trials"
"""Experiments that workers fetch while they run, below the flow run's own name."""

RESULTS = ("dvc.lock", "results")
_EMAIL = "scoremodel@localhost"  # of commits that flows make
IDENTITY = ("-c", "user.name=scoremodel", "-c", f"user.email={_EMAIL}")


def _commit(root: Path, name: str) -> str:
    """Return the commit of a reference, empty if there is none."""
    with suppress(GitError):
        return git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    return ""


def require_results_branch(root: Path, branch: str) -> str:
    """Refuse a branch that has other people's commits, whose files a run's results would replace.

    Args:
        root: a worktree at the commit that is run.
        branch: the branch for results.

    Returns:
        Its newest commit, empty if it is new.

    Raises:
        GitError: if the repository cannot be reached.
        ValueError: one line that says what is allowed.
    """
    fetch(root)
    tip = _commit(root, f"refs/remotes/origin/{branch}")
    if not tip or git(root, "log", "-1", "--format=%ce", tip).strip() == _EMAIL:
        return tip
    try:
        git(root, "merge-base", "--is-ancestor", tip, head(root))
    except GitError:
        raise ValueError(
            f"commit_to: {branch!r} has commits that are not in the commit that is run, allowed: a "
            "new branch, or one to which only flows commit"
        ) from None
    return tip


def commit_results(root: Path, branch: str | None, message: str) -> str | None:
    """Commit `dvc.lock` and the results of a worktree, and push them to a branch of its origin.

    The branch gets the commit that was run, with these results on top, and all rows of the ledger
    that it had before. Nobody's work is overwritten: the branch must be one to which only flows
    commit, or lie behind the commit that was run; if it has moved, it is tried again. What was not
    pushed, or was refused, is kept in the repository itself, and its rows go with the next push.

    Args:
        root: the worktree.
        branch: the branch's name; made if it is new. None to keep them here.
        message: of the commit.

    Returns:
        The commit, None if there was nothing new.

    Raises:
        GitError: if git refuses, with its line.
        ValueError: if the branch has commits of others.
    """
    ran = head(root)
    for attempt in range(3):
        tip = require_results_branch(root, branch) if branch else ""
        kept = _commit(root, KEPT)
        for one in filter(None, (tip, kept)):
            rows = git(root, "ls-tree", "-r", "--name-only", one, f"{LEDGER}/").splitlines()
            if missing := [row for row in rows if not (root / row).exists()]:
                git(root, "checkout", "--quiet", one, "--", *missing)
        git(root, "add", "--all", "--", *(path for path in RESULTS if (root / path).exists()))
        tree = git(root, "write-tree").strip()
        git(root, "reset", "--quiet")
        if tree == git(root, "rev-parse", f"{tip or ran}^{{tree}}").strip():
            if kept and tip:  # all its rows are there
                git(root, "update-ref", "-d", KEPT, kept)
            return None
        parents = [part for one in dict.fromkeys((ran, tip)) if one for part in ("-p", one)]
        made = git(root, *IDENTITY, "commit-tree", tree, *parents, "-m", message).strip()
        try:
            # Only if nobody else's has come meanwhile.
            git(root, "update-ref", KEPT, made, kept or "0" * 40)
            if not branch:
                return made
            git(root, "push", "--quiet", "origin", f"{made}:refs/heads/{branch}")
        except GitError:
            if attempt == 2:
                raise
        else:
            git(root, "update-ref", "-d", KEPT, made)
            return made
    raise AssertionError("unreachable")


@contextmanager
def lent(
    root: Path,
    repository: str,
    run: str,
    commits: Mapping[str, str],
    say: Callable[[str], object],
) -> Iterator[None]:
    """Let workers fetch experiments' commits from a repository elsewhere meanwhile.

    Args:
        root: the workspace.
        repository: the address.
        run: the flow run; under names of its own no other run of the same experiments takes them away.
        commits: the commits by the experiments' names.
        say: is told if they cannot be removed afterwards.

    Yields:
        Nothing, once they are there.

    Raises:
        GitError: if the repository does not take them.
    """
    names = {f"{LENT}/{run}/{name}": commit for name, commit in commits.items()}
    if repository == str(root) or not names:
        yield
        return
    pushed = [f"{commit}:{name}" for name, commit in names.items()]
    git(root, "push", "--quiet", "--force", repository, *pushed)
    try:
        yield
    finally:
        try:
            git(root, "push", "--quiet", repository, *(f":{name}" for name in names))
        except GitError as error:
            say(f"{LENT}/{run} in {repository} stay: {error}")
