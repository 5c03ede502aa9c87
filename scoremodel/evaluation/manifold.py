"""Precision, recall, density and coverage: how samples and real data lie in each other's midst.

A point is inside a set where it is nearer to one of its points than that point's k-th neighbour in
the set (Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, check_features
from scoremodel.evaluation.neighbours import blocks, nearest

__all__ = ["Manifold", "manifold"]


@dataclass(frozen=True)
class Manifold:
    """Who lies where; the four shares are means of these.

    Args:
        inside: whether each sample is inside the real data, with shape (N,).
        density: the number of real neighbourhoods around each sample, over k, with shape (N,).
        recalled: whether each real point is inside the samples, with shape (M,).
        covered: whether each real point's neighbourhood holds a sample, with shape (M,).
    """

    inside: NDArray[np.bool_]
    density: NDArray[np.float64]
    recalled: NDArray[np.bool_]
    covered: NDArray[np.bool_]

    def shares(self) -> dict[str, float]:
        """Return precision, recall, density and coverage."""
        return {
            "precision": float(self.inside.mean()),
            "recall": float(self.recalled.mean()),
            "density": float(self.density.mean()),
            "coverage": float(self.covered.mean()),
        }


def manifold(samples: Features, real: Features, k: int = 5) -> Manifold:
    """Return where samples and real points lie by each other's k nearest neighbours.

    All but density depend on both numbers; take equally many of each.

    Args:
        samples: samples' features with shape (N, D).
        real: real data's features with shape (M, D).
        k: which neighbour bounds a neighbourhood.

    Returns:
        One value for each point.

    Raises:
        ValueError: if a set has at most k points, or as `check_features` says.
    """
    samples = check_features(samples, "the samples' features")
    real = check_features(real, "the real features")
    for rows, name in ((samples, "the samples' features"), (real, "the real features")):
        if len(rows) <= k:
            raise ValueError(
                f"{name}: {len(rows)} rows are not allowed, allowed: more than k = {k}"
            )
    x, y = samples.astype(np.float64), real.astype(np.float64)
    own, theirs = (nearest(rows, rows, k, np.arange(len(rows)))[0][:, -1] for rows in (x, y))
    around = np.zeros(len(x))
    recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
    for block in blocks(y, x):
        near = block.below(theirs[block.rows, None])
        around += near.sum(axis=0)
        covered[block.rows] = near.any(axis=1)
        recalled[block.rows] = block.below(own).any(axis=1)
    return Manifold(around > 0, around / k, recalled, covered)
