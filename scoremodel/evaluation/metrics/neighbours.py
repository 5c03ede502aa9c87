"""Precision, recall, density and coverage, beside as many held-out data as there are samples."""

from __future__ import annotations

from scoremodel.evaluation.metrics.base import METRICS, Judged


@METRICS.register("precision", label="precision", place=50, better="higher")
def precision(judged: Judged) -> float:
    """Return the share of samples inside the real data."""
    return judged.manifold.shares()["precision"]


@METRICS.register("recall", label="recall", place=60, better="higher")
def recall(judged: Judged) -> float:
    """Return the share of real points inside the samples."""
    return judged.manifold.shares()["recall"]


@METRICS.register("density", label="density", place=70, better="higher")
def density(judged: Judged) -> float:
    """Return how many real neighbourhoods a sample is in, over k, in the mean; 1 of real data."""
    return judged.manifold.shares()["density"]


@METRICS.register("coverage", label="coverage", place=80, better="higher")
def coverage(judged: Judged) -> float:
    """Return the share of real points whose neighbourhood holds a sample."""
    return judged.manifold.shares()["coverage"]
