"""Experiments' and the workspace's records into the ledger."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.results.history import WORKSPACE, experiments, lock_at, records_at
from tasks.results.ledger import LedgerError, append
from tasks.results.rows import PARTS

__all__ = ["gather"]


def gather(names: Collection[str] | None = None) -> tuple[list[str], bool]:
    """Bring records into the ledger: the workspace's and every experiment's, or some experiments'.

    Args:
        names: of the experiments; None for all of them and the workspace, where an experiment that
            contradicts the ledger is a warning: what was measured before is nobody's mistake now.

    Returns:
        One line for each: how many rows were added, or why a record was left out; and whether no row
        of those that were asked for contradicted the ledger.
    """
    lines, agreed = [], True
    sources: list[tuple[str, str, str | None]] = []
    if names is None:
        sources.append((WORKSPACE, WORKSPACE, None))
    # An experiment's own commit is not in a clone; the one that it began from is, and the row has
    # the parameters by which they differ.
    sources += [
        (one.name, one.commit, f"{one.baseline}+")
        for one in experiments()
        if names is None or one.name in names
    ]
    for name, commit, revision in sources:
        try:
            records, lock = records_at(commit), lock_at(commit)
        except (ValueError, OSError) as error:
            lines.append(f"{name}: nothing, {error}")
            continue
        added = known = 0
        for record in records:
            configuration = Configuration(*(record[part] for part in PARTS))
            try:
                if commit == WORKSPACE:
                    _require_locked(configuration, lock)
                _, new = append(record, configuration, lock, revision=revision)
            except LedgerError as error:
                old = names is None and commit != WORKSPACE
                said = "warning: " if old else ""
                lines.append(f"{said}{name}: {configuration.name} refused: {error}")
                agreed &= old
            except ValueError as error:
                lines.append(f"{name}: {configuration.name} left out: {error}")
            else:
                added, known = added + new, known + (not new)
        lines.append(f"{name}: {added} rows added, {known} known")
    return lines, agreed


def _require_locked(configuration: Configuration, lock: dict[str, Any]) -> None:
    outs = lock["stages"].get(configuration.evaluation, {}).get("outs", [])
    locked = {out["path"]: out["md5"] for out in outs}
    if locked.get(str(configuration.record)) != file_hash(configuration.record):
        raise ValueError("dvc.lock has another record; run dvc repro")
