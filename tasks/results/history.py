"""What git remembers of results: records and `dvc.lock` of any revision, and DVC's experiments."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scoremodel.io.files import AGAIN
from tasks.files.documents import read_text
from tasks.files.git import git
from tasks.files.layout import RECORDS, Configuration
from tasks.files.lock import read_lock
from tasks.results.records import record_of

__all__ = [
    "WORKSPACE",
    "Experiment",
    "commit_time",
    "experiments",
    "lock_at",
    "records_at",
    "resolve",
]

WORKSPACE = "workspace"


class Experiment(NamedTuple):
    """One of DVC's experiments.

    Args:
        name: its name, which need not be its alone.
        commit: the commit that holds its results.
        baseline: the commit from which it began.
    """

    name: str
    commit: str
    baseline: str


def experiments() -> list[Experiment]:
    """Return DVC's experiments, oldest first."""
    listed = git(
        Path(),
        "for-each-ref",
        "--sort=committerdate",
        "--format=%(refname) %(objectname)",
        "refs/exps",
    )
    found = []
    for line in listed.splitlines():
        reference, commit = line.split()
        parts = reference.split("/")
        # refs/exps/ab/cdef…/NAME; the others there are DVC's own.
        if len(parts) == 5 and len(parts[2]) == 2:
            found.append(Experiment(parts[4], commit, parts[2] + parts[3]))
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
    known = {one.name: one.commit for one in experiments()}
    if name in known:
        return known[name]
    try:
        return git(
            Path(), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ).strip()
    except ValueError:
        raise ValueError(f"{name!r} is no revision and no experiment") from None


def _read_at(name: str) -> list[dict[str, Any]]:
    """Return all that lies in the records' folder of a revision, an experiment or the workspace."""
    remedy = AGAIN if name == WORKSPACE else "choose another revision"
    if name == WORKSPACE:
        texts = {str(path): read_text(path) for path in sorted(RECORDS.glob("[!.]*.json"))}
    else:
        commit = resolve(name)
        listed = git(Path(), "ls-tree", "-r", "--name-only", commit, f"{RECORDS}/").splitlines()
        names = [f"{commit}:{path}" for path in listed if path.endswith(".json")]
        texts = {one: git(Path(), "show", one) for one in names}
    if not texts:
        raise ValueError(f"{name}: has no records in {RECORDS}")
    return [record_of(text, one, remedy=remedy) for one, text in texts.items()]


def applications_at(name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what else models were found to do: model's name → application → numbers.

    Args:
        name: a revision, an experiment, or "workspace".

    Returns:
        The applications' records.

    Raises:
        ValueError: if there is no such revision, or it has no records.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for record in _read_at(name):
        if "application" in record:
            model = Configuration(record["dataset"], record["model"], record["train_seed"])
            found.setdefault(model.model_name, {})[record["application"]] = record["found"]
    return found


def records_at(name: str) -> list[dict[str, Any]]:
    """Return the records that a revision, an experiment or the workspace holds.

    Args:
        name: a revision, an experiment, or "workspace".

    Returns:
        The records, in the order of what was active there: the first sampler's is the one to quote.

    Raises:
        ValueError: if there is no such revision, or it has no records.
    """
    records = [record for record in _read_at(name) if "application" not in record]
    active = _active(name)

    def place(record: dict[str, Any]) -> tuple[int, ...]:
        keys = ("dataset", "model", "train_seed", "sampler")
        return tuple(
            names.index(record[key]) if record[key] in names else len(names)
            for key, names in ((key, active.get(f"{key}s", [])) for key in keys)
        )

    return sorted(records, key=place)


def _active(name: str) -> dict[str, list[Any]]:
    try:
        path = Path("params.yaml")
        text = (
            path.read_text()
            if name == WORKSPACE
            else git(Path(), "show", f"{resolve(name)}:{path}")
        )
        active: dict[str, list[Any]] = YAML(typ="safe", pure=True).load(text)["active"]
    except (OSError, ValueError, KeyError, TypeError, YAMLError):
        return {}
    return active


def lock_at(name: str) -> dict[str, Any]:
    """Return the content of `dvc.lock` in a revision, an experiment or the workspace."""
    if name == WORKSPACE:
        return read_lock(Path("dvc.lock"))
    called = f"{resolve(name)}:dvc.lock"
    return read_lock(git(Path(), "show", called), called)


def commit_time(revision: str) -> str | None:
    """Return when a commit was made, as ISO 8601 in UTC; None if git lacks it."""
    try:
        seconds = git(Path(), "show", "-s", "--format=%ct", "--end-of-options", revision).strip()
    except ValueError:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat(timespec="seconds")
