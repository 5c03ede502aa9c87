"""What the stages that judge samples share: the real data's side, and how numbers are summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scoremodel.evaluation.scores import Reference, Scores
from tasks.arrays import read_arrays, read_rows
from tasks.layout import Data
from tasks.params import Params, ParamsError

__all__ = ["reference", "rounded", "spread", "spreads"]


def rounded(value: float) -> float:
    """Return `value` with six significant digits: more would be the order of a sum."""
    return float(f"{value:.6g}")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (None of one value) and the values themselves, rounded."""
    return {
        "mean": rounded(float(np.mean(values))),
        "std": rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None,
        "by_seed": [rounded(value) for value in values],
    }


def spreads(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Return metric → `spread` over several sets of samples."""
    return {name: spread([one.values[name] for one in scores]) for name in scores[0].values}


def reference(name: str, params: Params) -> tuple[Reference, dict[str, Any]]:
    """Return a data set's reference as `params` have it, and what its features say of themselves.

    Args:
        name: the data set's name.
        params: all parameters.

    Returns:
        The reference; the name of the distance, the extractor's hash and the environment.

    Raises:
        ParamsError: if there are too few held-out points for the neighbourhoods.
    """
    files = Data(name)
    real, info = read_arrays(files.features)
    data = read_rows(files.arrays)
    labels = data.get("held_out_labels")
    evaluation = params.evaluation
    if len(real["held_out"]) <= evaluation.neighbours:
        raise ParamsError(
            f"params.yaml: evaluation.neighbours: {evaluation.neighbours} is not allowed for {name}, "
            f"allowed: less than its {len(real['held_out'])} held-out points"
        )
    found = Reference(
        real["train"],
        real["held_out"],
        evaluation.count,
        params.seed,
        evaluation.neighbours,
        None if labels is None else np.asarray(labels),
    )
    return found, info
