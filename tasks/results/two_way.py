"""The distance by training seed and sampling seed: what trainings vary by, beside what samples do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["two_way"]


def two_way(records: Sequence[dict[str, Any]], metric: str = "held_out") -> str:
    """Return a table for each data set, model and sampler, one row a training, one column a sampling seed.

    Args:
        records: what `evaluate` wrote.
        metric: a metric's name in them.

    Returns:
        Markdown: the values, their means, and below each table how much the means of trainings and of
        sampling seeds vary.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        key = (record["dataset"], record["model"], record["sampler"])
        groups.setdefault(key, []).append(record)
    said = []
    for (dataset, model, sampler), here in groups.items():
        values = np.array([record[metric]["by_seed"] for record in here])
        spreads = [
            f"{float(values.mean(axis).std(ddof=1)):.3g} over {what}"
            for axis, what in ((1, "trainings"), (0, "sampling seeds"))
            if values.shape[1 - axis] > 1
        ]
        shown = pd.DataFrame(
            np.block([[values, values.mean(1)[:, None]], [values.mean(0), values.mean()]]),
            index=pd.Index([*(f"train {one['train_seed']}" for one in here), "mean"], name=model),
            columns=[*(f"sample {seed}" for seed in here[0]["sampling_seeds"]), "mean"],
        )
        said.append(
            f"{dataset}, {sampler}, {here[0]['metric']}, N = {here[0]['count']}:\n\n"
            f"{shown.to_markdown(floatfmt='.3f')}\n\n"
            f"Standard deviation of the means: {', '.join(spreads) or 'not known from one'}."
        )
    return "\n\n".join(said)
