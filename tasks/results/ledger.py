"""The ledger: every row ever measured, one small JSON file each, in git.

A row's key is the hash of the inputs it depends on (data, parameters, code, as `dvc.lock` records
them for every stage up to `evaluate`, and the resolved files that it names), never of produced
bytes. Its fingerprint is the hash of the
environment. The same key and fingerprint with another value means that something is not
deterministic, and is an error; another machine's value stands beside.

A file's name holds key, fingerprint and a hash of what else it says (revision, seconds): two branches
that measured the same thing bring two files, and their merge has no conflict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired

from filelock import FileLock
from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from scoremodel.evaluation.metrics.base import ordered_metrics
from scoremodel.io.files import DamagedError, write_text
from tasks.files.documents import read_json, require_shape
from tasks.files.git import GitError, git, head
from tasks.files.hashes import content_hash, file_hash
from tasks.files.layout import LEDGER, RESOLVED, Configuration
from tasks.files.timing import Timing, read_timing
from tasks.results.records import Spread

__all__ = [
    "LedgerError",
    "append",
    "inputs",
    "read_resolved",
    "read_row",
    "read_rows",
]

Read = Callable[[str, str], dict[str, Any]]
"""(path, MD5) → the content of a file of `artifacts/resolved`."""

_SOURCES = (".", ":!dvc.lock", ":!results")  # what a run itself rewrites says nothing
_VALUES = ("memorised", "classes", "floor", "real", "gaussian", "ratio_to_floor", "panel", "nfe")
"""What a row keeps of a record, beside the metrics."""

# Under which keys of params.yaml a resolved file's content stands, by the file's folder.
_KEYS = {
    "models": "models.{name}",
    "samplers": "samplers.{name}",
    "external": "external.{name}",
    "datasets": "datasets.{name}",
    "extractors": "evaluation.extractor",
    "judge": "evaluation",
}
_SEEDED = (
    "datasets",
    "judge",
)  # have the `seed` that stands at the top of params.yaml beside their own
# Blocks, where others are single keys.
_WHOLE = ("models", "samplers", "external", "datasets", "extractors")


_RESTORE = "restore it from git: git restore {path}"


class _Checked(TypedDict):
    checksum: str


class _Inputs(TypedDict):
    files: dict[str, str]
    params: dict[str, dict[str, Any]]
    data_sha256: str


class _Values(TypedDict):
    held_out: Spread
    ratio_to_floor: FiniteFloat
    nfe: int | None


class _Row(TypedDict):
    configuration: Annotated[str, Field(pattern=r"^[^-]+-[^-]+-\d+-[^-]+$")]
    metric: str
    values: _Values
    environment: dict[str, str]
    inputs: _Inputs
    key: str
    revision: str | None
    seconds: dict[str, Timing | None]
    count: NotRequired[int]
    recorded: NotRequired[str]
    external: NotRequired[dict[str, Any]]


class LedgerError(ValueError):
    """Two values for one key and one environment."""


def inputs(stage: str, lock: dict[str, Any], read: Read | None = None) -> dict[str, Any]:
    """Return what the result of `stage` depends on, through all the stages before it.

    Args:
        stage: a stage's name, such as "evaluate@digits-ve-0-heun".
        lock: the content of `dvc.lock`.
        read: gives the content of a file of `artifacts/resolved` by its path and hash; by default
            from the workspace or DVC's cache.

    Returns:
        "files": path → hash of every source and every module of code, and "params": "resolved", the
        parameters by their keys in params.yaml, and for each stage its command.

    Raises:
        ValueError: if `dvc.lock` does not know the stage, some stage before it was run again since, or
            a resolved file is nowhere to be had.
    """
    stages = lock["stages"]
    maker = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", [])}
    made = {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs", [])}
    files: dict[str, str] = {}
    said: dict[str, Any] = {}
    params: dict[str, Any] = {}
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        if name in params:
            continue
        if name not in stages:
            raise ValueError(f"dvc.lock: has no stage {name!r}; run dvc repro")
        entry = stages[name]
        # Before there were resolved files a stage's parameters stood here.
        params[name] = {"cmd": entry["cmd"], **entry.get("params", {}).get("params.yaml", {})}
        for dependency in entry.get("deps", []):
            path, digest = dependency["path"], dependency["md5"]
            found = {path: digest}
            if Path(path).is_relative_to(RESOLVED):
                content = (read or read_resolved)(path, digest)
                found = {}
                if "modules" in content:
                    found = content["modules"]
                else:
                    _put(said, _keyed(Path(path).relative_to(RESOLVED), content), stage, "values")
            elif (made_by := maker.get(path)) is not None:
                if made_by == "check":  # constant, before there were resolved files
                    continue
                if made[path] != digest:
                    raise ValueError(f"dvc.lock: {name} was made before {made_by}; run dvc repro")
                waiting.append(made_by)
                continue
            _put(files, found, stage, "versions")
    return {"files": files, "params": params | ({"resolved": said} if said else {})}


def _put(known: dict[str, Any], found: dict[str, Any], stage: str, what: str) -> None:
    """Add to what is known, of which nothing can be of two kinds at once."""
    for key, value in found.items():
        if known.setdefault(key, value) != value:
            raise ValueError(f"dvc.lock: {stage} was made with two {what} of {key}; run dvc repro")


def _keyed(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved file's content by the keys of params.yaml: "models.ve" → its block."""
    folder = path.parent.name
    above = ("seed",) if folder in _SEEDED else ()
    found = {key: content[key] for key in above if key in content}
    rest = {key: value for key, value in content.items() if key not in (*above, "gives")}
    prefix = _KEYS.get(folder, "").format(name=path.stem.split("-")[-1])
    if folder in _WHOLE:
        return found | {prefix: rest}
    return found | {f"{prefix}.{key}" if prefix else key: value for key, value in rest.items()}


def read_resolved(path: str, md5: str) -> dict[str, Any]:
    """Return what a file of `artifacts/resolved` said when it had this hash.

    Args:
        path: the file.
        md5: its hash.

    Returns:
        Its content.

    Raises:
        ValueError: if neither the workspace nor DVC's cache has it.
    """
    here = Path(path)
    if here.is_file() and file_hash(here) == md5:
        return _content(here)
    from dvc.repo import Repo  # half a second that only other commits' rows need

    with Repo(".") as repo:
        cached = Path(repo.cache.local.oid_to_path(md5))
    if not cached.is_file():
        raise ValueError(f"{path}: as it was ({md5[:8]}) is not in DVC's cache; dvc fetch check")
    return _content(cached)


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, remedy="run dvc repro --force check")
    return content


def append(
    record: dict[str, Any],
    configuration: Configuration,
    lock: dict[str, Any],
    ledger: Path = LEDGER,
    revision: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Put one record into the ledger, once.

    Args:
        record: what `evaluate` wrote.
        configuration: which configuration it is of.
        lock: the content of the `dvc.lock` that belongs to the record.
        ledger: the ledger's folder.
        revision: the git revision that made the record; None for the one that is checked out.

    Returns:
        The row, and whether it is new.

    Raises:
        LedgerError: if the ledger holds another value for the same key and environment, or a
            damaged row for them.
        ValueError: if `dvc.lock` is not of one piece.
    """
    row_inputs = inputs(configuration.evaluation, lock)
    row_inputs["data_sha256"] = record["data_sha256"]  # a torchvision source names its data only
    values = {name: record[name] for name in (*ordered_metrics(), *_VALUES) if name in record}
    if record["agreement"] is not None:
        values["agreement"] = record["agreement"]
    row: dict[str, Any] = {
        "configuration": configuration.name,
        "count": record["count"],
        "metric": record["metric"],
        "values": values,
        "environment": record["environment"],
        "inputs": row_inputs,
        "key": content_hash(row_inputs),
    }
    if "external" in record:  # of such a row only the judging can be measured again here
        row["external"] = record["external"]
    stem = _stem(row)
    ledger.mkdir(parents=True, exist_ok=True)
    with FileLock(ledger / ".lock"):  # of two writers the second sees what the first has written
        known = {path: read_row(path) for path in sorted(ledger.glob(f"{stem}*.json"))}
        for path, present in known.items():
            if present["values"] != values:
                raise LedgerError(_difference(path, present, values, revision or _revision()))
        if known:
            return next(iter(known.values())), False
        row |= {
            "revision": revision or _revision(),
            "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {
                "train": _seconds(lock, f"train@{configuration.model_name}", configuration.weights),
                "sample": _seconds(lock, f"sample@{configuration.name}", configuration.samples),
            },
        }
        checksum = content_hash(row)
        text = json.dumps(row | {"checksum": checksum}, indent=1, sort_keys=True) + "\n"
        path = ledger / f"{stem}-{checksum[:8]}.json"
        write_text(path, text)
    return read_row(path), True  # in the order that every later reader sees


def _stem(row: dict[str, Any]) -> str:
    return f"{row['key'][:16]}-{content_hash(row['environment'])[:8]}"


def _difference(path: Path, row: dict[str, Any], values: dict[str, Any], now: str | None) -> str:
    before = row["values"]
    said = [
        f"{name} {_brief(before.get(name))} then, {_brief(values.get(name))} now"
        for name in sorted(before.keys() | values.keys())
        if before.get(name) != values.get(name)
    ]
    return (
        f"{path}: measured in the same environment with the same inputs at revision "
        f"{row['revision']} and now at {now}, with other values: {'; '.join(said)}. Something in the "
        "run is not deterministic"
    )


def _brief(value: Any) -> Any:
    return value.get("by_seed", value) if isinstance(value, dict) else value


def _seconds(lock: dict[str, Any], stage: str, made: Path) -> dict[str, Any] | None:
    outs = lock["stages"].get(stage, {}).get("outs", [])
    digest = next((out["md5"] for out in outs if out["path"] == str(made)), None)
    return None if digest is None else read_timing(digest)


def read_rows(ledger: Path = LEDGER) -> dict[str, dict[str, Any]]:
    """Return every row by its name, "key-fingerprint"; of several with equal values one.

    Args:
        ledger: the ledger's folder.

    Returns:
        The rows, sorted by name.

    Raises:
        LedgerError: if a row was edited, or two of one name have different values, as when two
            branches with such rows were merged.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(ledger.glob("[!.]*.json")):
        row = read_row(path)
        first = found.setdefault(_stem(row), row)
        if first["values"] != row["values"]:
            raise LedgerError(_difference(path, first, row["values"], row["revision"]))
    return found


def read_row(path: Path) -> dict[str, Any]:
    """Return one row of the ledger.

    Args:
        path: the row's file.

    Returns:
        The row without its checksum.

    Raises:
        LedgerError: if the file is no row, or was changed after it was written.
    """
    remedy = _RESTORE.format(path=path)
    try:
        row: dict[str, Any] = read_json(path, _Checked, remedy)
        checksum = row.pop("checksum")
        if content_hash(row) != checksum:
            raise LedgerError(f"{path}: was edited after it was written; restore it from git")
        require_shape(row, path, _Row, remedy)
    except DamagedError as error:
        raise LedgerError(f"{path}: not a row of the ledger ({error.what}); {remedy}") from error
    if row["key"] != content_hash(row["inputs"]) or not path.name.startswith(_stem(row)):
        raise LedgerError(f"{path}: its name is another row's; restore it from git")
    return row


def _revision() -> str | None:
    """Return the git revision, "+" if files other than the pipeline's own results differ from it."""
    try:
        changed = git(Path(), "status", "--porcelain", "--", *_SOURCES)
        return head(Path()) + ("+" if changed else "")
    except (OSError, GitError):
        return None
