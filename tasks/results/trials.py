"""Experiments: a combination of parameters is a commit, and so is what it scored.

What they leave are DVC's own experiments (`dvc exp show`): a commit on top of the one that they began
from, under refs/exps. How they are run is not said here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tasks.files.git import git, head
from tasks.params.overrides import edited
from tasks.results.branch import IDENTITY, RESULTS

__all__ = ["Trial", "base", "record", "trials"]

_TIME = "1970-01-01T00:00:00+0000"  # so that the same edits are the same commit


class Trial(NamedTuple):
    """One experiment.

    Args:
        name: the same for the same parameters on the same commit.
        commit: what is to be run.
        values: the overrides, dotted key → value.
    """

    name: str
    commit: str
    values: dict[str, Any]


def base(root: Path) -> str:
    """Return the tree that all experiments of a workspace begin from: its commit with its edits.

    Args:
        root: the workspace; what it has of results and `dvc.lock` is its commit's.

    Returns:
        The tree's hash.
    """
    return _tree(root, None)


def _tree(root: Path, params: str | None) -> str:
    with tempfile.TemporaryDirectory() as folder:  # git's index here stays as it is
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git(root, "read-tree", "HEAD", environment=index)
        left = [f":!{path}" for path in RESULTS]
        git(root, "add", "--update", "--", ".", *left, environment=index)
        if params is not None:
            path = Path(folder, "params.yaml")
            path.write_text(params, encoding="utf-8")
            blob = git(root, "hash-object", "-w", "--", str(path)).strip()
            entry = f"100644,{blob},params.yaml"
            git(root, "update-index", "--cacheinfo", entry, environment=index)
        return git(root, "write-tree", environment=index).strip()


def trials(root: Path, prefix: str, configurations: list[dict[str, Any]]) -> list[Trial]:
    """Return experiments as commits, which nothing else in the repository knows of.

    Args:
        root: the workspace.
        prefix: what their names begin with.
        configurations: the overrides of each.

    Returns:
        The experiments, each of them once.

    Raises:
        ValueError: for overrides that are refused.
    """
    text = (root / "params.yaml").read_text(encoding="utf-8")
    parent, found = head(root), {}
    dates = {"GIT_AUTHOR_DATE": _TIME, "GIT_COMMITTER_DATE": _TIME}
    for values in configurations:
        tree = _tree(root, edited(text, values))
        said = ", ".join(f"{key}={value}" for key, value in values.items()) or "as params.yaml says"
        command = (*IDENTITY, "commit-tree", tree, "-p", parent, "-m", said)
        commit = git(root, *command, environment=dates).strip()
        name = f"{prefix}-{commit[:8]}"
        found[name] = Trial(name, commit, values)
    return list(found.values())


def record(root: Path, folder: Path, trial: Trial) -> None:
    """Make what a trial has measured one of DVC's experiments.

    Args:
        root: the workspace that it is an experiment of.
        folder: the trial's worktree, in which all has run.
        trial: the experiment.
    """
    git(folder, "add", "--all", "--", *(path for path in RESULTS if (folder / path).exists()))
    tree, parent = git(folder, "write-tree").strip(), head(root)
    message = f"dvc: commit experiment {trial.name}"
    made = git(folder, *IDENTITY, "commit-tree", tree, "-p", parent, "-m", message).strip()
    git(root, "update-ref", f"refs/exps/{parent[:2]}/{parent[2:]}/{trial.name}", made)
