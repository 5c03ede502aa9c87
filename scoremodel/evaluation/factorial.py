"""What each of several factors contributes: effects in a two-level full factorial, in pairs of seeds.

Every training seed with every sampling seed gives all cells, that is every combination of the factors'
low and high level. What a seed does to all its cells alike drops out of every effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremodel.evaluation.comparison import Claim, Side, compare
from scoremodel.evaluation.intervals import holm

__all__ = ["Effect", "effects"]


@dataclass(frozen=True)
class Effect:
    """A factor's main effect, or the interaction of two factors, with its interval.

    Args:
        name: the factor's name, or "A × B".
        estimate: mean over the seeds, in units of the response.
        low: lower end of the interval.
        high: upper end.
        level: the interval's level.
        claim: whether it is of the methods, or of these checkpoints.
        p: of the two-sided test that there is no such effect, as if it were the only one.
        p_holm: the same, of all effects together, see `holm`.
    """

    name: str
    estimate: float
    low: float
    high: float
    level: float
    claim: Claim
    p: float
    p_holm: float


def effects(responses: ArrayLike, factors: Sequence[str], level: float = 0.95) -> list[Effect]:
    """Return the main effects and two-factor interactions of a full factorial, by training and sample.

    With each factor's sign s = −1 (low) or +1 (high) in a cell, and the sign of an interaction the
    product of its factors' signs, the contrast of training j with sampling seed k is

        c_jk = mean of the cells with sign +1 − mean of the cells with sign −1,

    so that a main effect is the response's change from low to high, averaged over the other factors,
    and an interaction half of what one factor's change differs by between the other's levels. What a
    seed does to all cells alike drops out. The interval is that of `compare` for a table of paired
    differences: over trainings and sampling seeds where there are enough of both, else over the
    sampling seeds of these trainings.

    Box, Hunter and Hunter, Statistics for Experimenters, 2nd edition 2005, chapters 4 and 5.

    Args:
        responses: shape (J, K, 2, …, 2) of J trainings and K sampling seeds, then one axis for each
            factor: 0 is its low level, 1 its high.
        factors: the factors' names, in the order of the axes.
        level: of the intervals, in (0.5, 1).

    Returns:
        One for each factor, then one for each pair of them.

    Raises:
        ValueError: if the shape is another, a response is not finite, or as `compare` says.
    """
    observed = np.asarray(responses, float)
    if not factors or observed.shape[2:] != (2,) * len(factors):
        raise ValueError(
            f"{len(factors)} factors need responses of shape (J, K{', 2' * len(factors)}), "
            f"got {observed.shape}"
        )
    seeds = tuple(range(observed.shape[0])), tuple(range(observed.shape[1]))
    axes = range(len(factors))
    terms = [*combinations(axes, 1), *combinations(axes, 2)]
    found = []
    for term in terms:
        contrasts = _contrasts(observed, term)
        nothing = Side(np.zeros_like(contrasts), *seeds)
        found.append(compare(Side(contrasts, *seeds), nothing, level=level))
    return [
        Effect(
            " × ".join(factors[axis] for axis in term),
            one.difference,
            one.low,
            one.high,
            level,
            one.claim,
            one.p_value,
            adjusted,
        )
        for term, one, adjusted in zip(
            terms, found, holm([one.p_value for one in found]), strict=True
        )
    ]


def _contrasts(observed: NDArray[np.float64], term: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the contrasts of the factors whose axes are in `term`, with shape (J, K)."""
    signs = np.ones(observed.shape[2:])
    for axis in term:
        shape = [2 if axis == other else 1 for other in range(signs.ndim)]
        signs = signs * np.array([-1.0, 1.0]).reshape(shape)
    found: NDArray[np.float64] = (observed * signs).reshape(*observed.shape[:2], -1).mean(2) * 2
    return found
