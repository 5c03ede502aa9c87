"""The table: one row for each active configuration, from the records that `evaluate` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pandas as pd

from tasks.layout import REPORT, TABLE, Configuration
from tasks.params import Params, load_params
from tasks.stage import run

__all__ = ["COLUMNS", "active_configurations", "main", "read_records", "table", "text"]

COLUMNS = {
    "dataset": "data set",
    "model": "model",
    "train_seed": "train seed",
    "sampler": "sampler",
    "nfe": "NFE",
    "count": "N",
    "metric": "metric",
    "held_out_mean": "to held-out",
    "held_out_std": "± std",
    "sampling_seeds": "seeds",
    "train_mean": "to train",
    "floor": "floor",
    "floor_std": "± std of it",
    "ratio_to_floor": "× floor",
    "agreement": "of asked class",
}
"""The table's columns and how people read them."""


def active_configurations(params: Params) -> Iterator[Configuration]:
    """Yield every active data set × model × training seed × sampler, in that order."""
    active = params.active
    for combination in product(active.datasets, active.models, active.train_seeds, active.samplers):
        yield Configuration(*combination)


def read_records(params: Params) -> list[dict[str, Any]]:
    """Return the records of the active configurations; what others left behind is not read.

    Args:
        params: says what is active.

    Returns:
        One record for each active configuration, in the order of `active_configurations`.

    Raises:
        FileNotFoundError: if an active configuration has no record yet.
    """
    missing = [c.record for c in active_configurations(params) if not c.record.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no record yet; run dvc repro")
    return [
        json.loads(configuration.record.read_text(encoding="utf-8"))
        for configuration in active_configurations(params)
    ]


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each record, with the columns `COLUMNS`."""
    rows = [
        record
        | {
            "held_out_mean": record["held_out"]["mean"],
            "held_out_std": record["held_out"]["std"],
            "sampling_seeds": len(record["sampling_seeds"]),
            "train_mean": record["train"]["mean"],
            "floor": record["floor"]["value"],
            "floor_std": record["floor"]["std"],
            "agreement": record["agreement"]["mean"] if record["agreement"] else None,
        }
        for record in records
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def text(rows: pd.DataFrame) -> str:
    """Return the table as people read it in a terminal, without the columns that are empty."""
    return (
        rows.dropna(axis=1, how="all")
        .rename(columns=COLUMNS)
        .to_string(index=False, na_rep="—", float_format=lambda value: f"{value:.3f}")
    )


def main(_: Sequence[str]) -> None:
    """Print the table, and where the report is."""
    print(text(table(read_records(load_params()))))
    print(f"\ntable:  {TABLE}\nreport: {REPORT.resolve().as_uri()}")


if __name__ == "__main__":
    run(main)
