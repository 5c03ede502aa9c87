"""What each of several factors contributes: effects in a two-level full factorial, seen in blocks.

Every block, such as a training seed, gives all cells, that is every combination of the factors' low
and high level. What a block does to all its cells alike drops out of every effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from scoremodel.evaluation.intervals import holm

__all__ = ["Effect", "effects"]


@dataclass(frozen=True)
class Effect:
    """A factor's main effect, or the interaction of two factors, with its interval.

    Args:
        name: the factor's name, or "A × B".
        estimate: mean over the blocks, in units of the response.
        low: lower end of the interval.
        high: upper end.
        level: the interval's level.
        blocks: number of blocks.
        p: of the two-sided test that there is no such effect, as if it were the only one.
        p_holm: the same, of all effects together, see `holm`.
    """

    name: str
    estimate: float
    low: float
    high: float
    level: float
    blocks: int
    p: float
    p_holm: float


def effects(responses: ArrayLike, factors: Sequence[str], level: float = 0.95) -> list[Effect]:
    """Return the main effects and two-factor interactions of a full factorial, observed in blocks.

    With each factor's sign s = −1 (low) or +1 (high) in a cell, and the sign of an interaction the
    product of its factors' signs, block b's contrast is

        c_b = mean of the cells with sign +1 − mean of the cells with sign −1,

    so that a main effect is the response's change from low to high, averaged over the other factors,
    and an interaction half of what one factor's change differs by between the other's levels. The
    interval is the t-interval of the contrasts over the blocks, as of paired differences:

        c̄ ± t_{B−1} s_c / √B.

    The blocks are the independent observations; the cells of one block need not be. An effect that
    differs from block to block widens its interval.

    Box, Hunter and Hunter, Statistics for Experimenters, 2nd edition 2005, chapters 4 and 5.

    Args:
        responses: shape (blocks, 2, …, 2), one axis for each factor: 0 is its low level, 1 its high.
        factors: the factors' names, in the order of the axes.
        level: of the intervals, in (0, 1).

    Returns:
        One for each factor, then one for each pair of them.

    Raises:
        ValueError: if the shape is another, a response is not finite, or there are fewer than two
            blocks.
    """
    observed = np.asarray(responses, float)
    if not factors or observed.shape[1:] != (2,) * len(factors):
        raise ValueError(
            f"{len(factors)} factors need responses of shape (blocks{', 2' * len(factors)}), "
            f"got {observed.shape}"
        )
    if len(observed) < 2:
        raise ValueError(f"effects need at least 2 blocks, got {len(observed)}")
    if not np.isfinite(observed).all():
        raise ValueError("responses must be finite")
    axes = range(len(factors))
    terms = [*combinations(axes, 1), *combinations(axes, 2)]
    contrasts = np.stack([_contrasts(observed, term) for term in terms])
    blocks = len(observed)
    means = contrasts.mean(1)
    errors = contrasts.std(1, ddof=1) / np.sqrt(blocks)
    half = float(stats.t.ppf((1 + level) / 2, blocks - 1)) * errors
    with np.errstate(divide="ignore"):  # contrasts without spread: certain
        t = np.divide(np.abs(means), errors, out=np.zeros_like(means), where=means != 0)
    p = 2 * stats.t.sf(t, blocks - 1)
    return [
        Effect(
            " × ".join(factors[axis] for axis in term),
            float(means[i]),
            float(means[i] - half[i]),
            float(means[i] + half[i]),
            level,
            blocks,
            float(p[i]),
            adjusted,
        )
        for i, (term, adjusted) in enumerate(zip(terms, holm(p), strict=True))
    ]


def _contrasts(observed: NDArray[np.float64], term: tuple[int, ...]) -> NDArray[np.float64]:
    """Return each block's contrast of the factors whose axes are in `term`."""
    signs = np.ones(observed.shape[1:])
    for axis in term:
        shape = [2 if axis == other else 1 for other in range(signs.ndim)]
        signs = signs * np.array([-1.0, 1.0]).reshape(shape)
    per_block: NDArray[np.float64] = (observed * signs).reshape(len(observed), -1).mean(1) * 2
    return per_block
