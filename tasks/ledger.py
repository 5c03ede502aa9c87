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

from scoremodel.files import write_text
from tasks.hashes import content_hash
from tasks.layout import LEDGER, Configuration
from tasks.timing import read_timing

__all__ = ["LedgerError", "append", "inputs", "read_row"]

_SOURCES = (".", ":!dvc.lock", ":!results")  # what a run itself rewrites says nothing
_VALUES = ("held_out", "train", "floor", "ratio_to_floor", "nfe")


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


def append(
    record: dict[str, Any],
    configuration: Configuration,
    lock_file: Path = Path("dvc.lock"),
    ledger: Path = LEDGER,
) -> Path:
    """Put one record into the ledger, once.

    Args:
        record: what `evaluate` wrote.
        configuration: which configuration it is of.
        lock_file: DVC's lock file.
        ledger: the ledger's folder.

    Returns:
        The row's file.

    Raises:
        LedgerError: if the ledger holds another value for the same key and environment, or a
            damaged row for them.
    """
    lock = YAML(typ="safe", pure=True).load(lock_file)
    row_inputs = inputs(f"evaluate@{configuration.name}", lock)
    row_inputs["data_sha256"] = record["data_sha256"]  # a torchvision source names its data only
    key, fingerprint = content_hash(row_inputs), content_hash(record["environment"])
    path = ledger / f"{key[:16]}-{fingerprint[:8]}.json"
    values = {name: record[name] for name in _VALUES}
    if record["agreement"] is not None:
        values["agreement"] = record["agreement"]
    if path.exists():
        present = read_row(path)
        if present["values"] != values:
            raise LedgerError(
                f"{path}: {present['values']['held_out']['by_seed']} was measured in this "
                f"environment with the same inputs, now {values['held_out']['by_seed']}: "
                "something in the run is not deterministic"
            )
        return path
    row = {
        "configuration": configuration.name,
        "metric": record["metric"],
        "values": values,
        "environment": record["environment"],
        "inputs": row_inputs,
        "key": key,
        "revision": _revision(),
        "seconds": {
            "train": read_timing(configuration.weights),
            "sample": read_timing(configuration.samples),
        },
    }
    row["checksum"] = content_hash(row)
    write_text(path, json.dumps(row, indent=1, sort_keys=True) + "\n")
    return path


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
