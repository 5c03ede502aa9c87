"""Every metric of one set of samples, from one set of features, against the same real data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, kernel_distance
from scoremodel.evaluation.metrics.base import Judged, ordered_metrics
from scoremodel.evaluation.reference import Reference

__all__ = ["Scores", "score"]


@dataclass(frozen=True)
class Scores:
    """What one set of samples scored.

    Args:
        values: one number for each metric, in the order of `ordered_metrics`.
        memorised: whether the samples copy training data more often than held-out data seem to.
        classes: class number → metric → value: recall and coverage of the held-out data of that class,
            and, if the samples' own classes are known, their precision, density and KID.
    """

    values: dict[str, float]
    memorised: bool
    classes: dict[int, dict[str, float]]


def score(features: Features, real: Reference, labels: NDArray[np.integer] | None = None) -> Scores:
    """Return what samples with these features score.

    Args:
        features: features with shape (N, D).
        real: the real data's side.
        labels: the class that each sample was asked to be of, with shape (N,), if it was.

    Returns:
        All metrics.

    Raises:
        ValueError: as the metrics say.
    """
    judged = Judged(features, real, labels)
    values = {kind: metric(judged) for kind, metric in ordered_metrics().items()}
    return Scores(values, judged.copying.memorised, _classes(judged))


def _classes(judged: Judged) -> dict[int, dict[str, float]]:
    real, places = judged.real, judged.manifold
    found: dict[int, dict[str, float]] = {}
    if real.matched_labels is None or real.labels is None:
        return found
    for label in np.unique(real.matched_labels):
        here = real.matched_labels == label
        values = found[int(label)] = {
            "recall": float(places.recalled[here].mean()),
            "coverage": float(places.covered[here].mean()),
        }
        if judged.labels is None or not (judged.labels == label).any():
            continue
        mine = judged.labels == label
        values["precision"] = float(places.inside[mine].mean())
        values["density"] = float(places.density[mine].mean())
        sides = judged.features[mine], real.held_out[real.labels == label]
        if all(len(np.unique(rows, axis=0)) > 1 for rows in sides):
            values["kid"] = kernel_distance(*sides)
    return found
