"""Precision, recall, density and coverage: how samples and real data lie in each other's midst.

A point is inside a set where it is nearer to one of its points than that point's k-th neighbour in
the set (Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, check_features

__all__ = ["Manifold", "manifold"]

_MOST = 4_000_000  # distances at a time


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
    for rows, name in ((samples, "the samples' features"), (real, "the real features")):
        check_features(rows, name)
        if len(rows) <= k:
            raise ValueError(
                f"{name}: {len(rows)} rows are not allowed, allowed: more than k = {k}"
            )
    x, y = samples.astype(np.float64), real.astype(np.float64)
    own, theirs = _radii(x, k), _radii(y, k)
    around = np.zeros(len(x))
    recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
    for here in _blocks(len(y), len(x)):
        squares, slack = _products(y[here], x)
        near = _below(y[here], x, squares, theirs[here, None], slack)
        around += near.sum(axis=0)
        covered[here] = near.any(axis=1)
        recalled[here] = _below(y[here], x, squares, own, slack).any(axis=1)
    return Manifold(around > 0, around / k, recalled, covered)


def _radii(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the square of each point's distance to its k-th neighbour."""
    found = []
    for here in _blocks(len(rows), len(rows)):
        squares, _ = _products(rows[here], rows)
        squares[np.arange(len(squares)), np.arange(len(rows))[here]] = np.inf  # itself
        nearest = np.argpartition(squares, k - 1, axis=1)[:, :k]
        pairs = [_squares(rows[here], rows[column]) for column in nearest.T]
        found.append(np.max(pairs, axis=0))
    return np.concatenate(found)


def _squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |a_i − b_i|², the same to the bit wherever the pair stands and in either order."""
    squares: NDArray[np.float64] = np.square(a - b).sum(axis=1)
    return squares


def _products(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return |a_i|² + |b_j|² − 2 a_i·b_j, which is fast but not `_squares` to the bit; how far from it."""
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    first, second = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    squares: NDArray[np.float64] = a @ b.T
    squares *= -2
    squares += first[:, None]
    squares += second
    return squares, 1e-11 * float(first.max() + second.max())


def _below(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    squares: NDArray[np.float64],
    bounds: NDArray[np.float64],
    slack: float,
) -> NDArray[np.bool_]:
    """Return whether |a_i − b_j|² < the bound, by `_squares` wherever the products do not decide it.

    A copy of a point's k-th neighbour is exactly as far as that one, and not nearer.
    """
    near: NDArray[np.bool_] = squares < bounds
    i, j = np.nonzero(np.abs(squares - bounds) <= slack)
    near[i, j] = _squares(a[i], b[j]) < np.broadcast_to(bounds, squares.shape)[i, j]
    return near


def _blocks(rows: int, columns: int) -> list[slice]:
    """Return slices of the rows, of which each has at most so many distances as memory likes."""
    size = max(1, _MOST // columns)
    return [slice(first, first + size) for first in range(0, rows, size)]
