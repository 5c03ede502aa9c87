"""The table: one row for each active configuration, from the records that `evaluate` wrote.

What is not known of samples from elsewhere (network calls, parameters, training images) is empty there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scoremodel.evaluation.metrics.base import ordered_metrics
from tasks.files.documents import read_table as read_csv
from tasks.files.layout import Configuration
from tasks.results.active import Active, active_configurations, active_models
from tasks.results.records import read_record
from tasks.results.spread import is_rounding

__all__ = [
    "COLUMNS",
    "Column",
    "Row",
    "floor_at",
    "floor_said",
    "labels",
    "read_applications",
    "read_records",
    "read_table",
    "summary",
    "table",
    "terminal",
    "text",
    "with_spread",
]


@dataclass(frozen=True)
class Row:
    """What a row of the table is made of.

    Args:
        record: what `evaluate` wrote.
        took: seconds that sampling took and on which device, as the ledger has it, if it is known.
        applications: what else the model was found to do, by application.
    """

    record: Mapping[str, Any]
    took: Mapping[str, Any] | None
    applications: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        label: how people read it.
        get: its value in a row; None where there is none.
        terminal: whether it stands in the terminal too.
    """

    label: str
    get: Callable[[Row], Any]
    terminal: bool = False


def _of(key: str, label: str, terminal: bool = False) -> Column:
    return Column(label, lambda row: row.record[key], terminal)


def _likelihood(key: str, label: str, terminal: bool = False) -> Column:
    return Column(label, lambda row: row.applications.get("likelihood", {}).get(key), terminal)


def _took(key: str, label: str, terminal: bool = False) -> Column:
    return Column(label, lambda row: row.took[key] if row.took else None, terminal)


def _metric(name: str, part: str) -> Callable[[Row], Any]:
    return lambda row: row.record.get(name, {}).get(part)


_TERMINAL = ("held_out", "infinity", "kid", "precision", "recall", "coverage", "authentic")


def _metrics() -> dict[str, Column]:
    found: dict[str, Column] = {}
    for name, metric in ordered_metrics().items():
        shown = name in _TERMINAL
        found[f"{name}_mean"] = Column(metric.label, _metric(name, "mean"), shown)
        found[f"{name}_std"] = Column("± std", _metric(name, "std"), name == "held_out")
        if name == "held_out":
            found["ratio_to_floor"] = _of("ratio_to_floor", "× floor", True)
    return found


COLUMNS: dict[str, Column] = {
    "dataset": _of("dataset", "data set", True),
    "model": _of("model", "model", True),
    "train_seed": _of("train_seed", "train seed", True),
    "sampler": _of("sampler", "sampler", True),
    "nfe": _of("nfe", "NFE", True),
    "count": _of("count", "N"),
    "sampling_seeds": Column("seeds", lambda row: len(row.record["sampling_seeds"])),
    "metric": _of("metric", "metric"),
    **_metrics(),
    "bits_per_dim": _likelihood("bits_per_dim", "bits/dim", True),
    "bits_per_dim_error": _likelihood("std_error", "± std error"),
    "gaussian_bits_per_dim": _likelihood("gaussian", "Gaussian's bits/dim", True),
    "agreement": Column(
        "of asked class", lambda row: (row.record["agreement"] or {}).get("mean"), True
    ),
    "memorised": _of("memorised", "memorised"),
    "floor": Column("floor", lambda row: row.record["floor"]["value"]),
    "floor_std": Column("± std of it", lambda row: row.record["floor"]["std"]),
    "floor_count": Column("N of it", lambda row: row.record["floor"]["count"]),
    "gaussian": Column("Gaussian", lambda row: row.record["gaussian"]["held_out"]["mean"]),
    "gaussian_std": Column("± std of it", lambda row: row.record["gaussian"]["held_out"]["std"]),
    "pareto": Column("on the front", lambda _: None),  # of all rows together, see `table`
    "sample_seconds": _took("seconds_per_1000", "s / 1000", True),
    "sample_device": _took("device", "device"),
    "train_images": _of("train_images", "train images"),
    "parameters": _of("parameters", "parameters"),
    "warnings": Column("to know", lambda row: "; ".join(row.record["warnings"]) or None),
}
"""The table's columns, in their order: a new one is one entry here."""


def labels() -> dict[str, str]:
    """Return each column's name and how people read it."""
    return {name: column.label for name, column in COLUMNS.items()}


def terminal() -> list[str]:
    """Return the columns that fit a terminal."""
    return [name for name, column in COLUMNS.items() if column.terminal]


_METHOD = ("dataset", "model", "sampler")
_UNKNOWN = ("nfe", "parameters", "train_images")  # whole numbers all the same
_TEXTS = (*_METHOD, "metric")
_DRAWN = ("held_out_std", "floor", "floor_std")  # in figures


def read_table(path: Path) -> pd.DataFrame:
    """Return the table that the stage report wrote.

    Args:
        path: the file.

    Returns:
        The table.

    Raises:
        FileNotFoundError: if there is none yet.
        DamagedError: if it is damaged, or lacks a column that is shown.
    """
    numbers = [name for name in (*terminal(), *_DRAWN) if name not in _TEXTS]
    rows: pd.DataFrame = read_csv(path, numbers, _TEXTS)
    return rows


def read_records(active: Active) -> list[dict[str, Any]]:
    """Return the records of the active configurations; what others left behind is not read.

    Args:
        active: what is active.

    Returns:
        One record for each active configuration, in the order of `active_configurations`.

    Raises:
        FileNotFoundError: if an active configuration has no record yet.
    """
    missing = [c.record for c in active_configurations(active) if not c.record.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no record yet; run dvc repro")
    return [read_record(configuration.record) for configuration in active_configurations(active)]


def read_applications(active: Active) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what else the active models were found to do: model's name → application → numbers."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for files in active_models(active, applications=True):
        record = read_record(files.record)
        found.setdefault(files.model_name, {})[files.application] = record["found"]
    return found


def _model_name(record: Mapping[str, Any]) -> str:
    parts = (record["dataset"], record["model"], record["train_seed"])
    return Configuration(*parts).model_name


def table(
    records: Sequence[dict[str, Any]],
    seconds: Sequence[Mapping[str, Any] | None] | None = None,
    applications: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> pd.DataFrame:
    """Return one row for each record, with the columns `COLUMNS`.

    Args:
        records: what `evaluate` wrote.
        seconds: for each record what sampling took, as the ledger has it, if it is known.
        applications: what else models were found to do, as `read_applications` returns it.

    Returns:
        The table; a row is on the front if no other model or sampler of its data set has as small a
        distance with as few network calls, in the mean over training seeds.
    """
    rows = []
    for record, took in zip(records, seconds or [None] * len(records), strict=True):
        row = Row(record, took, (applications or {}).get(_model_name(record), {}))
        rows.append({name: column.get(row) for name, column in COLUMNS.items()})
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found = found.astype({name: "Int64" for name in _UNKNOWN if found[name].isna().any()})
    means = [one for one in summary(found) if one["nfe"] is not None]
    fronts = {
        tuple(mine[part] for part in _METHOD): not any(
            other["dataset"] == mine["dataset"]
            and other["nfe"] <= mine["nfe"]
            and other["held_out"] <= mine["held_out"]
            and (other["nfe"], other["held_out"]) != (mine["nfe"], mine["held_out"])
            for other in means
        )
        for mine in means
    }
    found["pareto"] = [
        fronts.get(key) for key in found[list(_METHOD)].itertuples(index=False, name=None)
    ]
    return found


def summary(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return mean and spread over the training seeds, one row a data set, model and sampler.

    Args:
        rows: the table.

    Returns:
        Data set, model, sampler, `nfe` (None if it is not known), `count` (of training seeds), and each
        metric's mean under its name with its standard deviation under NAME_std: over training seeds, of
        a single one over sampling seeds.
    """
    found = []
    for key, here in rows.groupby(list(_METHOD), sort=False):
        row: dict[str, Any] = dict(zip(_METHOD, key, strict=True))
        nfe = here["nfe"].mean()
        row |= {"count": len(here), "nfe": None if pd.isna(nfe) else int(nfe)}
        for metric in (*ordered_metrics(), "ratio_to_floor"):
            values = here[metric if metric in here else f"{metric}_mean"]
            own = here[f"{metric}_std"].iloc[0] if f"{metric}_std" in here else None
            row[metric] = float(values.mean())
            row[f"{metric}_std"] = float(values.std(ddof=1)) if len(here) > 1 else own
        found.append(row)
    return found


def with_spread(value: float, std: float | None) -> str:
    """Return "value ± std", with two significant digits of the spread, or four of the value alone."""
    if std is None or pd.isna(std):
        return f"{value:.4g}"
    if is_rounding(std, value):
        return f"{value:.4g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(std)))
    return f"{value:.{digits}f} ± {std:.{digits}f}"


def floor_at(record: Mapping[str, Any]) -> float:
    """Return the floor of as many real data as there are samples, or the nearest to it that is known."""
    floor = record["floor"]
    return float(floor.get("at_count", floor["value"]))


def floor_said(record: Mapping[str, Any]) -> str:
    """Return the floor with its spread, and its N where that is not the samples' own."""
    floor = record["floor"]
    said = with_spread(floor["value"], floor.get("std"))
    few = floor.get("count", record["count"])
    return said if few == record["count"] else f"{said} (of N = {few}, not {record['count']})"


def text(rows: pd.DataFrame) -> str:
    """Return the table as people read it in a terminal: the columns of `terminal`, without what is empty."""
    return (
        rows[terminal()]
        .dropna(axis=1, how="all")
        .rename(columns=labels())
        .to_string(index=False, na_rep="—", float_format=lambda value: f"{value:.4g}")
    )
