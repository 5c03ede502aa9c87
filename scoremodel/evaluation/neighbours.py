"""Nearest neighbours and "nearer than", the same whichever routine asks, copies and ties among them.

Distances by |a|² + |b|² − 2 a·b are fast, but not 0 for a copy, and two of them that are equal come out
different. So they decide only what is beyond their rounding; all else is decided by |a − b|² itself,
which is the same to the bit wherever the pair stands and in either order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "blocks", "nearest", "squared_distances"]

_MOST = 4_000_000  # numbers at a time
_ROUNDING = 1e-11  # of |a|² + |b|², which is far more than what products of 2,048 features lose


def squared_distances(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return |a_i − b_j|² of pairs of rows, the same to the bit in any company and order.

    Args:
        a: rows with shape (N, D).
        b: rows with shape (M, D).
        i: numbers of rows of a, with shape (P,).
        j: numbers of rows of b, with shape (P,).

    Returns:
        Squares with shape (P,).
    """
    size = max(1, _MOST // a.shape[1])
    found = np.empty(len(i))
    for first in range(0, len(i), size):
        part = slice(first, first + size)
        found[part] = np.square(a[i[part]] - b[j[part]]).sum(axis=1)
    return found


class Block:
    """The distances of some rows of a to all rows of b.

    Args:
        rows: which rows of a.
        a: rows with shape (N, D).
        b: rows with shape (M, D).
        centre: a point in their midst with shape (D,), for less rounding.
    """

    def __init__(
        self,
        rows: slice,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        centre: NDArray[np.float64],
    ) -> None:
        self.rows, self.a, self.b = rows, a[rows], b
        left, right = self.a - centre, b - centre
        norms = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)
        left *= -2
        self.squares: NDArray[np.float64] = left @ right.T
        self.squares += norms
        norms *= _ROUNDING
        self.slack = norms

    def below(self, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether |a_i − b_j|² < the bound, for bounds that broadcast to (N, M).

        A copy of a point's k-th neighbour is exactly as far as that one, and not nearer.
        """
        near: NDArray[np.bool_] = self.squares < bounds
        i, j = np.nonzero(np.abs(self.squares - bounds) <= self.slack)
        exact = squared_distances(self.a, self.b, i, j)
        near[i, j] = exact < np.broadcast_to(bounds, near.shape)[i, j]
        return near

    def nearest(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the squared distances to the k nearest rows of b, and their numbers, (N, k) each.

        Of equally near ones the first comes first.
        """
        at_most = self.squares + self.slack
        if k > 1:
            at_most.partition(k - 1, axis=1)
            at_most = at_most[:, k - 1 : k]
        else:
            at_most = at_most.min(axis=1, keepdims=True)
        i, j = np.nonzero(self.squares - self.slack <= at_most)
        exact = squared_distances(self.a, self.b, i, j)
        order = np.lexsort((j, exact, i))
        begin = np.searchsorted(i, np.arange(len(self.a)))  # at least k candidates for each row
        chosen = order[begin[:, None] + np.arange(k)]
        return exact[chosen], j[chosen]


def blocks(a: NDArray[np.float64], b: NDArray[np.float64]) -> Iterator[Block]:
    """Yield all distances of rows of a (N, D) to those of b (M, D), so many as memory likes at a time."""
    size, centre = max(1, _MOST // len(b)), b.mean(axis=0)
    for first in range(0, len(a), size):
        yield Block(slice(first, first + size), a, b, centre)


def nearest(
    a: NDArray[np.float64], b: NDArray[np.float64], k: int, itself: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the squared distances to the k nearest rows, the nearest first, and their numbers.

    Args:
        a: rows with shape (N, D).
        b: rows with shape (M, D).
        k: how many.
        itself: the number that each row of a has in b, where it is not its own neighbour, with
            shape (N,); a copy of it is.

    Returns:
        Squares and row numbers, with shape (N, k). Of equally near rows the first comes first.
    """
    found = []
    for block in blocks(a, b):
        if itself is not None:
            block.squares[np.arange(len(block.a)), itself[block.rows]] = np.inf
        found.append(block.nearest(k))
    squares, numbers = zip(*found, strict=True)
    return np.concatenate(squares), np.concatenate(numbers)
