"""Git, asked by lists of arguments: no shell, no helper program, no question that nobody answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tasks.files.addresses import cleaned

__all__ = ["GitError", "git", "head", "short"]

_ENVIRONMENT = {"GIT_ALLOW_PROTOCOL": "file:https:ssh", "GIT_TERMINAL_PROMPT": "0"}


class GitError(ValueError):
    """Git has refused; its own line."""


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what git prints.

    Args:
        folder: the repository, or a folder in its worktree.
        *arguments: git's own.
        environment: variables to add.

    Returns:
        Its standard output.

    Raises:
        GitError: with git's own line, if it fails.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **_ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["failed"]
        said = next((line for line in lines if line.startswith("fatal:")), lines[-1])
        raise GitError(f"git {arguments[0]}: {cleaned(said.removeprefix('fatal: '))}")
    return done.stdout


def head(folder: Path) -> str:
    """Return the commit that is checked out."""
    return git(folder, "rev-parse", "--verify", "HEAD").strip()


def short(folder: Path) -> str:
    """Return the short commit that is checked out, for people."""
    try:
        return head(folder)[:7]
    except GitError:
        return "no commit"
