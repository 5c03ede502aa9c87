"""How wide an interval is: at one look, or at every look that anybody takes; and several at once.

Student's t holds for a number of observations that was fixed before they were made. Whoever adds
observations until the answer is clear looks again and again, and needs a confidence sequence: it holds
at all looks together (Howard et al. 2021, arXiv:1810.08240).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

__all__ = ["holm", "multiplier", "satterthwaite"]

_EFFECT_VARIANCE = 10.0
"""Variance of the standardised effects over which the sequence mixes: any is valid, this one is tight
between 5 and 20 observations."""


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return a sum of independent variances and its degrees of freedom.

        ν = (Σ v_i)² / Σ (v_i² / ν_i)

    (Satterthwaite 1946, doi:10.2307/3002019).

    Args:
        parts: each a variance v_i, which may be negative, and its degrees of freedom ν_i.

    Returns:
        The sum, in the variances' unit, and ν, at least the least of the ν_i.
    """
    total = sum(value for value, _ in parts)
    squares = sum(value**2 / freedom for value, freedom in parts)
    least = min(freedom for _, freedom in parts)
    return total, max(total**2 / squares, least) if squares > 0 else least


def multiplier(level: float, freedom: float, watched: bool = False) -> float:
    """Return how many standard errors an interval of a mean reaches to each side.

    For one look it is Student's t_ν at (1 + level) / 2. For every look it inverts the mixture of t-tests

        B = (1 + n g)^(−½) [(1 + t²/ν) / (1 + t²/(ν (1 + n g)))]^(n/2),   n = ν + 1,

    over standardised effects of variance g, whose chance of ever reaching 1 / (1 − level) under the
    truth is at most 1 − level, for normal observations of unknown spread (Lai 1976; Wang & Ramdas 2023,
    arXiv:2310.03722).

    Args:
        level: of the interval, in (0, 1).
        freedom: degrees of freedom ν > 0 of the standard error.
        watched: whether it is to hold at every look.

    Returns:
        The multiplier; infinite where so few observations allow no interval at every look.
    """
    if not watched:
        return float(stats.t.ppf((1 + level) / 2, freedom))
    n = freedom + 1
    widened = 1 + n * _EFFECT_VARIANCE
    bound = (np.sqrt(widened) / (1 - level)) ** (2 / n)
    if bound >= widened:
        return float("inf")
    return float(np.sqrt(freedom * (bound - 1) / (1 - bound / widened)))


def holm(p: ArrayLike) -> list[float]:
    """Return Holm's adjusted p-values of several tests together.

    With the m values sorted, p_(1) ≤ … ≤ p_(m),

        p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j)).

    Where those below α are taken for real, some true "no effect" is among them with a probability of
    at most α, however the tests depend on each other.

    Holm, A simple sequentially rejective multiple test procedure, 1979.

    Args:
        p: the tests' p-values, each in [0, 1].

    Returns:
        The adjusted values, in the order of `p`.

    Raises:
        ValueError: if a p-value is outside [0, 1].
    """
    values = np.asarray(p, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values must be in [0, 1], got {values.tolist()}")
    order = np.argsort(values, kind="stable")
    scaled = np.minimum(1.0, values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(scaled)
    return [float(value) for value in adjusted]
