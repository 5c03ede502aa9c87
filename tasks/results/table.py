"""The table: one row for each active configuration, from the records that `evaluate` wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pandas as pd

from tasks.files.layout import REPORT, TABLE, VERDICT, Configuration
from tasks.params.schema import Params
from tasks.files.stage import run

__all__ = [
    "COLUMNS",
    "TERMINAL",
    "active_configurations",
    "main",
    "read_records",
    "summary",
    "table",
    "text",
    "with_spread",
]

COLUMNS = {
    "dataset": "data set",
    "model": "model",
    "train_seed": "train seed",
    "sampler": "sampler",
    "nfe": "NFE",
    "count": "N",
    "sampling_seeds": "seeds",
    "metric": "metric",
    "held_out_mean": "to held-out",
    "held_out_std": "± std",
    "ratio_to_floor": "× floor",
    "train_mean": "to train",
    "train_std": "± std",
    "infinity_mean": "FD∞",
    "infinity_std": "± std",
    "kid_mean": "KID",
    "kid_std": "± std",
    "precision_mean": "precision",
    "precision_std": "± std",
    "recall_mean": "recall",
    "recall_std": "± std",
    "density_mean": "density",
    "density_std": "± std",
    "coverage_mean": "coverage",
    "coverage_std": "± std",
    "authentic_mean": "authentic",
    "authentic_std": "± std",
    "copies_mean": "copies",
    "copies_std": "± std",
    "likelihood_gap_mean": "likelihood gap",
    "likelihood_gap_std": "± std",
    "bits_per_dim": "bits/dim",
    "bits_per_dim_error": "± std error",
    "gaussian_bits_per_dim": "Gaussian's bits/dim",
    "agreement": "of asked class",
    "memorised": "memorised",
    "floor": "floor",
    "floor_std": "± std of it",
    "gaussian": "Gaussian",
    "gaussian_std": "± std of it",
    "pareto": "on the front",
    "sample_seconds": "s / 1000",
    "sample_device": "device",
    "train_images": "train images",
    "parameters": "parameters",
    "warnings": "to know",
}
"""The table's columns and how people read them."""

TERMINAL = (
    "dataset",
    "model",
    "train_seed",
    "sampler",
    "nfe",
    "held_out_mean",
    "held_out_std",
    "ratio_to_floor",
    "infinity_mean",
    "kid_mean",
    "precision_mean",
    "recall_mean",
    "coverage_mean",
    "authentic_mean",
    "bits_per_dim",
    "gaussian_bits_per_dim",
    "agreement",
    "sample_seconds",
)
"""The columns that fit a terminal."""

_METHOD = ("dataset", "model", "sampler")
_SPREAD = (
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
)


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


def table(
    records: Sequence[dict[str, Any]], seconds: Sequence[dict[str, Any] | None] | None = None
) -> pd.DataFrame:
    """Return one row for each record, with the columns `COLUMNS`.

    Args:
        records: what `evaluate` wrote.
        seconds: for each record what sampling took, as the ledger has it, if it is known.

    Returns:
        The table; a row is on the front if no other model or sampler of its data set has as small a
        distance with as few network calls, in the mean over training seeds.
    """
    rows = []
    for record, took in zip(records, seconds or [None] * len(records), strict=True):
        row = {name: record[name] for name in COLUMNS if name in record}
        for metric in _SPREAD:
            row |= {f"{metric}_{part}": record[metric][part] for part in ("mean", "std")}
        if record.get("likelihood"):
            likelihood = record["likelihood"]
            row |= {
                "bits_per_dim": likelihood["bits_per_dim"],
                "bits_per_dim_error": likelihood["std_error"],
                "gaussian_bits_per_dim": likelihood["gaussian"],
            }
        row |= {
            "sampling_seeds": len(record["sampling_seeds"]),
            "floor": record["floor"]["value"],
            "floor_std": record["floor"]["std"],
            "gaussian": record["gaussian"]["held_out"]["mean"],
            "gaussian_std": record["gaussian"]["held_out"]["std"],
            "agreement": record["agreement"]["mean"] if record["agreement"] else None,
            "sample_seconds": took["seconds_per_1000"] if took else None,
            "sample_device": took["device"] if took else None,
            "warnings": "; ".join(record["warnings"]) or None,
        }
        rows.append(row)
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    means = summary(found)
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
        fronts[key] for key in found[list(_METHOD)].itertuples(index=False, name=None)
    ]
    return found


def summary(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return mean and spread over the training seeds, one row a data set, model and sampler.

    Args:
        rows: the table.

    Returns:
        Data set, model, sampler, `nfe`, `count` (of training seeds), and each metric's mean under its
        name with its standard deviation under NAME_std: over training seeds, of a single one over
        sampling seeds.
    """
    found = []
    for key, here in rows.groupby(list(_METHOD), sort=False):
        row: dict[str, Any] = dict(zip(_METHOD, key, strict=True))
        row |= {"count": len(here), "nfe": int(here["nfe"].mean())}
        for metric in (*_SPREAD, "ratio_to_floor"):
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
    digits = 3 if std == 0 else max(0, 1 - math.floor(math.log10(std)))
    return f"{value:.{digits}f} ± {std:.{digits}f}"


def text(rows: pd.DataFrame) -> str:
    """Return the table as people read it in a terminal: `TERMINAL`, without what is empty."""
    return (
        rows[list(TERMINAL)]
        .dropna(axis=1, how="all")
        .rename(columns=COLUMNS)
        .to_string(index=False, na_rep="—", float_format=lambda value: f"{value:.4g}")
    )


def main(_: Sequence[str]) -> None:
    """Print the verdict and the table, and where the report is."""
    if not TABLE.exists():
        raise FileNotFoundError(f"{TABLE}: no such file; run dvc repro")
    verdict = VERDICT.read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in verdict if line.startswith("- ")) + "\n")
    print(text(pd.read_csv(TABLE)))
    print(f"\ntable:   {TABLE}\nverdict: {VERDICT}\nreport:  {REPORT.resolve().as_uri()}")


if __name__ == "__main__":
    run(main)
