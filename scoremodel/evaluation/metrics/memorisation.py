"""Signs of copying, each to be compared with what held-out data score."""

from __future__ import annotations

from scoremodel.evaluation.memorisation import likelihood_gap
from scoremodel.evaluation.metrics.base import METRICS, Judged

_MOST = 2000  # samples: the cost is their number times the real data's


@METRICS.register("authentic", label="authentic", place=90, better="higher")
def authentic(judged: Judged) -> float:
    """Return the share of samples farther from their nearest training point than that is from its own."""
    return judged.copying.authentic


@METRICS.register("copies", label="copies", place=100, better="lower")
def copies(judged: Judged) -> float:
    """Return the share of samples nearer to a training point than a third of that distance."""
    return judged.copying.copies


@METRICS.register("likelihood_gap", label="likelihood gap", place=110, better="lower")
def gap(judged: Judged) -> float:
    """Return how much likelier training data are than held-out data under a density of the samples."""
    return likelihood_gap(judged.features[:_MOST], judged.real.fitted, judged.real.new)
