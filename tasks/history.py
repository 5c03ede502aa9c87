"""What git remembers of results: records and `dvc.lock` of any revision, and DVC's experiments."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.layout import RECORDS
from tasks.ledger import read_lock

__all__ = ["experiments", "git", "lock_at", "moment", "records_at", "resolve"]

WORKSPACE = "workspace"


def git(*arguments: str) -> str:
    """Return what git prints.

    Args:
        *arguments: git's own, which reach no shell.

    Returns:
        Its standard output.

    Raises:
        ValueError: with git's own line, if it fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
        )
    return done.stdout


def experiments() -> dict[str, str]:
    """Return DVC's experiments, name → commit, oldest first; of one name the newest."""
    listed = git(
        "for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", "refs/exps"
    )
    found = {}
    for line in listed.splitlines():
        name, commit = line.split()
        parts = name.split("/")
        # refs/exps/ab/cdef…/NAME; the others there are DVC's own.
        if len(parts) == 5 and len(parts[2]) == 2:
            found[parts[4]] = commit
    return found


def resolve(name: str) -> str:
    """Return the commit of a revision or an experiment.

    Args:
        name: what git calls a revision, or an experiment's name.

    Returns:
        The commit's full hash.

    Raises:
        ValueError: if there is neither.
    """
    known = experiments()
    if name in known:
        return known[name]
    try:
        return git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ).strip()
    except ValueError:
        raise ValueError(f"{name!r} is no revision and no experiment") from None


def records_at(name: str) -> list[dict[str, Any]]:
    """Return the records that a revision, an experiment or the workspace holds.

    Args:
        name: a revision, an experiment, or "workspace".

    Returns:
        The records, sorted by their files' names.

    Raises:
        ValueError: if there is no such revision, or it has no records.
    """
    if name == WORKSPACE:
        texts = [path.read_text(encoding="utf-8") for path in sorted(RECORDS.glob("[!.]*.json"))]
    else:
        commit = resolve(name)
        listed = git("ls-tree", "-r", "--name-only", commit, f"{RECORDS}/").splitlines()
        texts = [git("show", f"{commit}:{path}") for path in listed if path.endswith(".json")]
    if not texts:
        raise ValueError(f"{name}: has no records in {RECORDS}")
    return [json.loads(text) for text in texts]


def lock_at(name: str) -> dict[str, Any]:
    """Return the content of `dvc.lock` in a revision, an experiment or the workspace."""
    if name == WORKSPACE:
        return read_lock(Path("dvc.lock"))
    return read_lock(git("show", f"{resolve(name)}:dvc.lock"))


def moment(revisions: Sequence[str]) -> dict[str, str]:
    """Return when each of some commits was made, as ISO 8601; without those that git lacks."""
    found = {}
    for revision in dict.fromkeys(revisions):
        try:
            found[revision] = git(
                "show", "-s", "--format=%cI", "--end-of-options", revision
            ).strip()
        except ValueError:
            continue
    return found
