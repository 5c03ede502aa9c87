"""What the stages that judge samples share: the real data's side, and every metric's spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.scores import Scores
from tasks.files.arrays import read_arrays, read_card, read_rows
from tasks.files.layout import Configuration
from tasks.params.errors import ParamsError
from tasks.results.spread import spread

__all__ = ["reference", "spreads"]

_NEEDS = ("train", "fresh", "held_out", "held_out_rows", "metric", "extractor", "warnings")


def spreads(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Return metric → `spread` over several sets of samples.

    Args:
        scores: what each set scored.

    Returns:
        The spreads.

    Raises:
        FloatingPointError: if a score is not finite, naming the metric.
    """
    found = {name: [one.values[name] for one in scores] for name in scores[0].values}
    for name, values in found.items():
        if bad := sum(not math.isfinite(value) for value in values):
            raise FloatingPointError(f"{name}: is not finite for {bad} of {len(values)} sets")
    return {name: spread(values) for name, values in found.items()}


def reference(files: Configuration, how: Mapping[str, Any]) -> tuple[Reference, dict[str, Any]]:
    """Return a data set's reference, and what its features say of themselves.

    Args:
        files: says which data set.
        how: `count`, `neighbours` and `seed`, as `check` resolved them.

    Returns:
        The reference; the name of the distance, the extractor's hash, the environment and what to
        warn of.

    Raises:
        ParamsError: if there are too few held-out points for the neighbourhoods.
    """
    real, info = read_arrays(files.real_features, _NEEDS)
    labels = read_rows(files.arrays, read_card(files.card)).get("held_out_labels")
    if len(real["held_out"]) <= how["neighbours"]:
        raise ParamsError(
            f"params.yaml: evaluation.neighbours: {how['neighbours']} is not allowed for "
            f"{files.dataset}, allowed: less than its {len(real['held_out'])} held-out points"
        )
    found = Reference(
        real["train"],
        real["held_out"],
        how["count"],
        how["seed"],
        how["neighbours"],
        None if labels is None else np.asarray(labels)[real["held_out_rows"]],
        real["fresh"],
    )
    return found, info
