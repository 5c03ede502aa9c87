"""The Fréchet distance to held-out data, to training data, and of infinitely many samples."""

from __future__ import annotations

from scoremodel.evaluation.distance import frechet_distance, frechet_infinity
from scoremodel.evaluation.metrics.base import METRICS, Judged


@METRICS.register("held_out", label="to held-out", place=10, better="lower")
def held_out(judged: Judged) -> float:
    """Return the Fréchet distance to all held-out data."""
    return frechet_distance(judged.moments, judged.real.held_out_moments)


@METRICS.register("train", label="to train", place=20, better="lower")
def train(judged: Judged) -> float:
    """Return the Fréchet distance to all training data that are new to the extractor."""
    return frechet_distance(judged.moments, judged.real.train_moments)


@METRICS.register("infinity", label="FD∞", place=30, better="lower")
def infinity(judged: Judged) -> float:
    """Return the Fréchet distance to held-out data, extrapolated to infinitely many samples."""
    return frechet_infinity(judged.features, judged.real.held_out_moments, judged.real.seed)
