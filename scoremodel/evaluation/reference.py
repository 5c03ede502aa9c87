"""The real data's side of every metric: what all sets of samples are compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import INFINITY_SAMPLES, Features, infinity_is_stable, moments
from scoremodel.evaluation.memorisation import authenticity

__all__ = ["Reference"]

_MOST = 5000  # training and held-out points of the likelihood gap, whose cost is their product


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
        fresh: numbers of the training points that the extractor was not trained on, None for all. Only
            their features are those of new data, so moments and the likelihood gap are of these;
            copying is looked for among all.
    """

    def __init__(
        self,
        train: Features,
        held_out: Features,
        count: int,
        seed: int,
        neighbours: int = 5,
        labels: NDArray[np.integer] | None = None,
        fresh: NDArray[np.integer] | None = None,
    ) -> None:
        self.train, self.held_out = train, held_out
        self.fresh_rows = np.arange(len(train)) if fresh is None else fresh
        self.fresh = train[self.fresh_rows]
        self.seed, self.neighbours = seed, neighbours
        self.held_out_moments = moments(held_out, "the held-out features")
        self.train_moments = moments(self.fresh, "the fresh training features")
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(held_out))
        matched = np.sort(order[: min(count, len(held_out))])
        self.matched = held_out[matched]
        self.matched_labels = None if labels is None else labels[matched]
        self.labels = labels
        self.fitted = self.fresh[np.sort(draw.permutation(len(self.fresh))[:_MOST])]
        self.new = held_out[np.sort(order[-_MOST:])]
        self.held_out_ratios = authenticity(self.matched, train)

    def warnings(self, count: int, floor_count: int) -> list[str]:
        """Return what a reader of `count` samples' scores should know of their number, and of the floor's."""
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
        if floor_count < count:
            found.append(
                f"the floor is of {floor_count} real data, half of the {len(self.fresh)} that are new "
                f"to the extractor, and the ratio to it of as many samples, not {count}"
            )
        if count > width and not infinity_is_stable(count, width):
            found.append(
                f"FD∞ is too small below {INFINITY_SAMPLES} × {width} samples, here are {count}"
            )
        return found
