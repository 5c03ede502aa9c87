"""KID."""

from __future__ import annotations

from scoremodel.evaluation.distance import kernel_distance
from scoremodel.evaluation.metrics.base import METRICS, Judged


@METRICS.register("kid", label="KID", place=40, better="lower")
def kid(judged: Judged) -> float:
    """Return the kernel distance to all held-out data."""
    return kernel_distance(judged.features, judged.real.held_out)
