"""The ledger's rows as tables, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scoremodel.evaluation.comparison import compare
from tasks.files.layout import LEDGER
from tasks.results.history import commit_time, records_at
from tasks.results.ledger import read_row, read_rows
from tasks.results.verdict import margin_of, side

__all__ = [
    "PARTS",
    "changes",
    "commit_of",
    "compare_revisions",
    "find_rows",
    "is_of",
    "ledger_table",
    "measured_seconds",
    "rows",
    "short",
    "when",
    "with_parts",
]

PARTS = ("dataset", "model", "train_seed", "sampler")
"""What a configuration is made of."""


def rows() -> list[dict[str, Any]]:
    """Return every row of the ledger, with its name and its configuration's parts."""
    return [with_parts(row, name) for name, row in read_rows().items()]


def with_parts(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a row of the ledger with a name and its configuration's parts."""
    dataset, model, train_seed, sampler = row["configuration"].split("-")
    parts = {"dataset": dataset, "model": model, "train_seed": int(train_seed)}
    return {"name": name, **parts, "sampler": sampler, **row}


def find_rows(key: str) -> list[dict[str, Any]]:
    """Return the rows, of all environments, of the one key that begins with `key`; or a file's row.

    Args:
        key: the beginning of a row's name or of its key, or its file.

    Returns:
        The rows, with their names and their configuration's parts.

    Raises:
        ValueError: if there is none, or several keys begin so.
    """
    stem = Path(key).name.removesuffix(".json")
    if stem and (path := LEDGER / f"{stem}.json").is_file():
        return [with_parts(read_row(path), stem)]
    found = [row for row in rows() if row["name"].startswith(key) or row["key"].startswith(key)]
    if not found:
        raise ValueError(
            f"{key}: no row in {LEDGER} begins so, and no file there has that name; `list` shows them"
        )
    if len({row["key"] for row in found}) > 1:
        names = ", ".join(row["name"] for row in found)
        raise ValueError(f"{key!r} stands for several rows: {names}")
    return found


def is_of(row: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether a row of the ledger says what a record does, in the same environment."""
    return (
        row["configuration"] == "-".join(str(record[part]) for part in PARTS)
        and row["environment"] == record["environment"]
        and all(record[name] == value for name, value in row["values"].items() if name in record)
    )


def when(row: dict[str, Any]) -> str:
    """Return when the row was recorded; of rows that do not say so, when their commit was made."""
    return str(row.get("recorded") or commit_time(commit_of(row)) or "")


def measured_seconds() -> dict[str, dict[str, Any]]:
    """Return configuration's name → what its stages took, of each the newest row that says so."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(read_rows().values(), key=when):
        known = {stage: took for stage, took in (row.get("seconds") or {}).items() if took}
        found.setdefault(row["configuration"], {}).update(known)
    return found


def ledger_table(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the ledger's rows as a table; what an old row did not measure is empty."""

    def metric(row: dict[str, Any], name: str, part: str) -> float | None:
        value = row["values"].get(name)
        return None if value is None else value[part]

    return pd.DataFrame(
        [
            {
                "key": row["name"].split("-")[0],
                "environment": row["name"].split("-")[1],
                **{part: row[part] for part in PARTS},
                "metric": row["metric"],
                "NFE": row["values"]["nfe"],
                "to held-out": metric(row, "held_out", "mean"),
                "std": metric(row, "held_out", "std"),
                "× floor": row["values"]["ratio_to_floor"],
                "FD∞": metric(row, "infinity", "mean"),
                "KID": metric(row, "kid", "mean"),
                "revision": None if row["revision"] is None else short(row["revision"]),
                "recorded": when(row),
                "device": "elsewhere, not reproducible from here"
                if "external" in row
                else (row["seconds"].get("sample") or {}).get("device"),
            }
            for row in found
        ]
    )


def commit_of(row: dict[str, Any]) -> str:
    return str(row["revision"]).removesuffix("+")


def short(revision: str) -> str:
    return revision[:9] + ("+" if revision.endswith("+") else "")


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return which inputs of two rows differ: "key: old → new" for parameters, paths for files.

    Args:
        before: the older row's inputs, as `tasks.results.ledger.inputs` returns them.
        after: the newer row's.

    Returns:
        One text for each difference, sorted; a parameter of several stages is named once.
    """

    def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(values, dict):
            for key, value in values.items():
                yield from flat(value, f"{name}.{key}" if name else key)
        else:
            yield name, values

    def params(row: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for stage in row["params"].values()
            for key, value in flat({k: v for k, v in stage.items() if k != "cmd"})
        }

    old, new = params(before), params(after)
    found = {
        f"{key}: {old.get(key, '—')} → {new.get(key, '—')}"
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    files = before["files"].keys() | after["files"].keys()
    found |= {path for path in files if before["files"].get(path) != after["files"].get(path)}
    return sorted(found)


def compare_revisions(first: str, second: str) -> pd.DataFrame:
    """Return what two revisions, experiments or the workspace scored, one row a configuration.

    Args:
        first: a revision, an experiment or "workspace".
        second: another one.

    Returns:
        Distances to held-out, second − first with its 95 % interval over sampling seeds, in pairs
        where both have the same, and what is shown of the second: better, worse, equivalent, undecided,
        or the same.

    Raises:
        ValueError: if one of them is unknown or has no records.
    """
    sides = []
    for name in (first, second):
        here = {tuple(record[part] for part in PARTS): record for record in records_at(name)}
        sides.append(here)
    rows = []
    for parts in dict.fromkeys([*sides[0], *sides[1]]):
        row: dict[str, Any] = dict(zip(PARTS, parts, strict=True))
        a, b = (side.get(parts) for side in sides)
        row[first] = a["held_out"]["mean"] if a else None
        row[second] = b["held_out"]["mean"] if b else None
        if a is None or b is None:
            row["shown"] = f"only in {first if a else second}"
        elif any(a[key] != b[key] for key in ("metric", "count", "data_sha256")):
            row["shown"] = "not comparable: other data, extractor or number of samples"
        elif a["held_out"]["by_seed"] == b["held_out"]["by_seed"]:
            row |= {"difference": 0.0, "shown": "the same"}
        else:
            row["difference"] = b["held_out"]["mean"] - a["held_out"]["mean"]
            try:
                found = compare(
                    side([b], "held_out"), side([a], "held_out"), "checkpoints", margin=margin_of(b)
                )
            except ValueError as error:
                row["shown"] = f"no verdict: {error}"
            else:
                row |= {"low": found.low, "high": found.high, "shown": found.answer}
        rows.append(row)
    return pd.DataFrame(rows)
