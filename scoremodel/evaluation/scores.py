"""Every metric of one set of samples, from one set of features, against the same real data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import (
    Features,
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    moments,
)
from scoremodel.evaluation.manifold import manifold
from scoremodel.evaluation.memorisation import authenticity, copying, likelihood_gap

__all__ = ["METRICS", "Reference", "Scores"]

METRICS = {
    "held_out": "distance to held-out",
    "train": "distance to train",
    "infinity": "FD∞",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "authentic": "authentic",
    "copies": "copies",
    "likelihood_gap": "likelihood gap",
}
"""The metrics' names here and as people read them."""

_MOST_SAMPLES, _MOST_REAL = 2000, 5000  # of the likelihood gap, whose cost is their product


@dataclass(frozen=True)
class Scores:
    """What one set of samples scored.

    Args:
        values: one number for each of `METRICS`.
        memorised: whether the samples copy training data more often than held-out data seem to.
        classes: class number → metric → value: recall and coverage of the held-out data of that class,
            and, if the samples' own classes are known, their precision, density and KID.
    """

    values: dict[str, float]
    memorised: bool
    classes: dict[int, dict[str, float]]


class Reference:
    """Real data's features, and what all sets of samples share of the work.

    Args:
        train: features of the training split with shape (M, D).
        held_out: features of the held-out split with shape (L, D).
        count: number of samples that will be scored; precision and the others of its kind compare
            with as many held-out points, or with all.
        seed: seed of the subsets.
        neighbours: k of precision, recall, density and coverage.
        labels: the held-out points' class numbers with shape (L,), if known.
    """

    def __init__(
        self,
        train: Features,
        held_out: Features,
        count: int,
        seed: int,
        neighbours: int = 5,
        labels: NDArray[np.integer] | None = None,
    ) -> None:
        self.train, self.held_out = train, held_out
        self.seed, self.neighbours = seed, neighbours
        self._moments = {
            "held_out": moments(held_out, "the held-out features"),
            "train": moments(train, "the training features"),
        }
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(held_out))
        matched = np.sort(order[: min(count, len(held_out))])
        self.matched = held_out[matched]
        self.matched_labels = None if labels is None else labels[matched]
        self.labels = labels
        self.fitted = train[np.sort(draw.permutation(len(train))[:_MOST_REAL])]
        self.new = held_out[np.sort(order[-_MOST_REAL:])]
        self.held_out_ratios = authenticity(self.matched, train)

    def score(self, features: Features, labels: NDArray[np.integer] | None = None) -> Scores:
        """Return what samples with these features score.

        Args:
            features: features with shape (N, D).
            labels: the class that each sample was asked to be of, with shape (N,), if it was.

        Returns:
            All metrics.

        Raises:
            ValueError: as the metrics say.
        """
        places = manifold(features, self.matched, self.neighbours)
        copied = copying(authenticity(features, self.train), self.held_out_ratios)
        values = {
            "held_out": frechet_distance(features, self._moments["held_out"]),
            "train": frechet_distance(features, self._moments["train"]),
            "infinity": frechet_infinity(features, self._moments["held_out"], self.seed),
            "kid": kernel_distance(features, self.held_out),
            **places.shares(),
            "authentic": copied.authentic,
            "copies": copied.copies,
            "likelihood_gap": likelihood_gap(features[:_MOST_SAMPLES], self.fitted, self.new),
        }
        classes: dict[int, dict[str, float]] = {}
        if self.matched_labels is not None and self.labels is not None:
            for label in np.unique(self.matched_labels):
                here = self.matched_labels == label
                classes[int(label)] = {
                    "recall": float(places.recalled[here].mean()),
                    "coverage": float(places.covered[here].mean()),
                }
                if labels is None or not (labels == label).any():
                    continue
                mine = labels == label
                classes[int(label)] |= {
                    "precision": float(places.inside[mine].mean()),
                    "density": float(places.density[mine].mean()),
                }
                sides = features[mine], self.held_out[self.labels == label]
                if all(len(np.unique(rows, axis=0)) > 1 for rows in sides):
                    classes[int(label)]["kid"] = kernel_distance(*sides)
        return Scores(values, copied.memorised, classes)

    def warnings(self, count: int) -> list[str]:
        """Return what a reader of `count` samples' scores should know of their number."""
        width = self.train.shape[1]
        found = [
            f"{size} {what} do not determine the covariance of {width} features"
            for size, what in ((count, "samples"), (len(self.held_out), "held-out points"))
            if size <= width
        ]
        if len(self.held_out) < count:
            found.append(
                f"precision, recall and coverage compare {count} samples with only "
                f"{len(self.held_out)} held-out points"
            )
        if count > width and count < 6 * width:
            found.append(f"FD∞ is stable from 6 × {width} samples on, here are {count}")
        return found
