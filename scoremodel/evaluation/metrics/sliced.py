"""The sliced 2-Wasserstein distance, squared."""

from __future__ import annotations

from scoremodel.evaluation.distance import sliced_distance
from scoremodel.evaluation.metrics.base import METRICS, Judged


@METRICS.register("sliced", label="sliced W2²", place=48, better="lower")
def sliced(judged: Judged) -> float:
    """Return the sliced distance to all held-out data."""
    return sliced_distance(judged.features, judged.real.held_out, judged.real.seed)
