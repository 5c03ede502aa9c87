"""The ledger: every row ever measured, one small JSON file each, in git.

A row's key is the hash of the inputs it depends on (data, parameters, code, as `dvc.lock` records
them for every stage up to `evaluate`), never of produced bytes. Its fingerprint is the hash of the
environment. The same key and fingerprint with another value means that something is not
deterministic, and is an error; another machine's value stands beside.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scoremodel.files import write_once
from tasks.hashes import content_hash
from tasks.layout import LEDGER, Configuration
from tasks.timing import read_timing

__all__ = ["LedgerError", "append", "find_rows", "inputs", "read_lock", "read_row", "row_path"]

_SOURCES = (".", ":!dvc.lock", ":!results")  # what a run itself rewrites says nothing
_VALUES = (
    "held_out",
    "train",
    "infinity",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "authentic",
    "copies",
    "likelihood_gap",
    "memorised",
    "classes",
    "floor",
    "real",
    "gaussian",
    "ratio_to_floor",
    "nfe",
)


class LedgerError(ValueError):
    """Two values for one key and one environment."""


def inputs(stage: str, lock: dict[str, Any]) -> dict[str, Any]:
    """Return what the result of `stage` depends on, through all the stages before it.

    Args:
        stage: a stage's name, such as "evaluate@digits-ve-0-heun".
        lock: the content of `dvc.lock`.

    Returns:
        "files": path → hash of every dependency that no stage makes (sources and code), and
        "params": for each stage its parameters, and its command. What `check` makes is constant, so
        `check`'s own dependencies (all of params.yaml) are left out.

    Raises:
        ValueError: if `dvc.lock` does not know the stage.
    """
    stages = lock["stages"]
    maker = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", [])}
    files: dict[str, str] = {}
    params: dict[str, Any] = {}
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        if name in params:
            continue
        if name not in stages:
            raise ValueError(f"dvc.lock: has no stage {name!r}; run dvc repro")
        entry = stages[name]
        params[name] = {"cmd": entry["cmd"], **entry.get("params", {}).get("params.yaml", {})}
        for dependency in entry.get("deps", []):
            made_by = maker.get(dependency["path"])
            if made_by is None:
                files[dependency["path"]] = dependency["md5"]
            elif made_by != "check":
                waiting.append(made_by)
    return {"files": files, "params": params}


def read_lock(text: str | Path = Path("dvc.lock")) -> dict[str, Any]:
    """Return the content of `dvc.lock`, given as its text or its path."""
    lock: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return lock


def _key(record: dict[str, Any], configuration: Configuration, lock: dict[str, Any]) -> Any:
    row_inputs = inputs(f"evaluate@{configuration.name}", lock)
    row_inputs["data_sha256"] = record["data_sha256"]  # a torchvision source names its data only
    return row_inputs, content_hash(row_inputs), content_hash(record["environment"])


def row_path(
    record: dict[str, Any],
    configuration: Configuration,
    lock: dict[str, Any],
    ledger: Path = LEDGER,
) -> Path:
    """Return where the row of one record lies: its key and its environment's fingerprint name it."""
    _, key, fingerprint = _key(record, configuration, lock)
    return ledger / f"{key[:16]}-{fingerprint[:8]}.json"


def append(
    record: dict[str, Any],
    configuration: Configuration,
    lock: dict[str, Any],
    ledger: Path = LEDGER,
    revision: str | None = None,
) -> Path:
    """Put one record into the ledger, once.

    Args:
        record: what `evaluate` wrote.
        configuration: which configuration it is of.
        lock: the content of the `dvc.lock` that belongs to the record.
        ledger: the ledger's folder.
        revision: the git revision that made the record; None for the one that is checked out.

    Returns:
        The row's file.

    Raises:
        LedgerError: if the ledger holds another value for the same key and environment, or a
            damaged row for them.
    """
    row_inputs, key, _ = _key(record, configuration, lock)
    path = row_path(record, configuration, lock, ledger)
    values = {name: record[name] for name in _VALUES if name in record}
    if record["agreement"] is not None:
        values["agreement"] = record["agreement"]
    now = revision or _revision()
    if not path.exists():
        row = {
            "configuration": configuration.name,
            "count": record["count"],
            "metric": record["metric"],
            "values": values,
            "environment": record["environment"],
            "inputs": row_inputs,
            "key": key,
            "revision": now,
            "seconds": {
                "train": _seconds(lock, f"train@{configuration.model_name}", configuration.weights),
                "sample": _seconds(lock, f"sample@{configuration.name}", configuration.samples),
            },
        }
        row["checksum"] = content_hash(row)
        if write_once(path, json.dumps(row, indent=1, sort_keys=True) + "\n"):
            return path
    present = read_row(path)
    if present["values"] != values:
        raise LedgerError(
            f"{path}: {present['values']['held_out']['by_seed']} was measured in this environment "
            f"with the same inputs at revision {present['revision']}, now "
            f"{values['held_out']['by_seed']} at {now}: something in the run is not deterministic"
        )
    return path


def _seconds(lock: dict[str, Any], stage: str, made: Path) -> dict[str, Any] | None:
    outs = lock["stages"].get(stage, {}).get("outs", [])
    digest = next((out["md5"] for out in outs if out["path"] == str(made)), None)
    return None if digest is None else read_timing(digest)


def find_rows(ledger: Path = LEDGER) -> list[Path]:
    """Return every row's file, sorted by name; what a killed writer left behind is none."""
    return sorted(path for path in ledger.glob("*.json") if not path.name.startswith("."))


def read_row(path: Path) -> dict[str, Any]:
    """Return one row of the ledger.

    Args:
        path: the row's file.

    Returns:
        The row without its checksum.

    Raises:
        LedgerError: if the file is no row, or was changed after it was written.
    """
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        checksum = row.pop("checksum")
    except (ValueError, KeyError, AttributeError) as error:
        raise LedgerError(f"{path}: not a row of the ledger ({error})") from error
    if content_hash(row) != checksum:
        raise LedgerError(f"{path}: was edited after it was written; restore it from git")
    return row


def _revision() -> str | None:
    """Return the git revision, "+" if files other than the pipeline's own results differ from it."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", *_SOURCES) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
