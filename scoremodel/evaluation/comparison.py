"""Which of two is better, and how sure is that: Welch's interval for the difference of two means.

One checkpoint sampled with several seeds says something about that checkpoint. A claim about the
method that trained it needs several trainings: their means, not the samples, are then the
independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

__all__ = ["TRAININGS", "Comparison", "compare", "seeds_needed"]

TRAININGS = 3
"""Training seeds that a claim about a method needs, for each side."""

_MOST = 100_000


@dataclass(frozen=True)
class Comparison:
    """The difference of two sides' means, first − second, with its interval.

    Args:
        subject: "methods" if the interval is over training seeds, else "checkpoints".
        means: the two means.
        stds: the two standard deviations of the observations.
        counts: the two numbers of observations.
        low: lower end of the interval.
        high: upper end.
        level: the interval's level.
    """

    subject: Literal["methods", "checkpoints"]
    means: tuple[float, float]
    stds: tuple[float, float]
    counts: tuple[int, int]
    low: float
    high: float
    level: float

    @property
    def difference(self) -> float:
        """The first mean minus the second."""
        return self.means[0] - self.means[1]

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """What is shown of the first side, where smaller is better."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "no difference shown"

    @property
    def seeds(self) -> tuple[int | None, int | None] | None:
        """If the interval holds 0, the range of observations a side that would tell the two apart.

        Each with a probability of 80 %: the first number if the difference is as large as the
        interval allows, the second if it is the one observed; None is more than can be had. Both are
        more than there were, which did not suffice.
        """
        if self.verdict != "no difference shown":
            return None
        spread = float(np.hypot(*self.stds))
        largest = max(-self.low, self.high)
        more = max(self.counts) + 1
        needed = (
            seeds_needed(difference, spread, self.level)
            for difference in (largest, abs(self.difference))
        )
        least, most = (None if number is None else max(number, more) for number in needed)
        return least, most


def compare(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], level: float = 0.95
) -> Comparison:
    """Return the difference of two sides' means with its interval at `level`.

    The observations of each side count as independent. Sides that share their sampling seeds share
    the noise that their samples begin with: what it does to both alike drops out of the difference,
    and the interval is wider than it need be.

        (m_1 − m_2) ± t_ν √(s_1²/n_1 + s_2²/n_2)

    with Welch and Satterthwaite's ν (Welch 1947). With at least `TRAININGS` training seeds on both
    sides the observations are the trainings' means; with one on both, the sampling seeds' values;
    with two, no claim about methods is made, and the spread is that of sampling within each training.

    Args:
        first: values of one side: for each training seed one for each sampling seed.
        second: the other side's.
        level: in (0, 1).

    Returns:
        The comparison.

    Raises:
        ValueError: if a spread cannot be had: fewer than two sampling seeds of a checkpoint where
            there are fewer than `TRAININGS` trainings.
    """
    sides = [[np.asarray(values, float) for values in side] for side in (first, second)]
    if min(map(len, sides)) >= TRAININGS:
        observed = [np.array([values.mean() for values in side]) for side in sides]
        means = [float(values.mean()) for values in observed]
        variances = [[float(values.var(ddof=1)) / len(values)] for values in observed]
        freedom = [[len(values) - 1] for values in observed]
        stds = [float(values.std(ddof=1)) for values in observed]
        counts = [len(values) for values in observed]
    else:
        if min((len(values) for side in sides for values in side), default=0) < 2:
            raise ValueError(
                "a comparison of checkpoints needs at least 2 sampling seeds of each, or "
                f"{TRAININGS} training seeds"
            )
        means = [float(np.mean([values.mean() for values in side])) for side in sides]
        variances = [
            [float(values.var(ddof=1)) / len(values) / len(side) ** 2 for values in side]
            for side in sides
        ]
        freedom = [[len(values) - 1 for values in side] for side in sides]
        stds = [float(np.sqrt(np.mean([v.var(ddof=1) for v in side]))) for side in sides]
        counts = [sum(map(len, side)) for side in sides]
    parts, degrees = np.array([*variances[0], *variances[1]]), np.array([*freedom[0], *freedom[1]])
    error = float(np.sqrt(parts.sum()))
    nu = float(parts.sum() ** 2 / (parts**2 / degrees).sum()) if error > 0 else float(degrees.sum())
    difference = means[0] - means[1]
    half = float(stats.t.ppf((1 + level) / 2, nu)) * error
    return Comparison(
        "methods" if min(map(len, sides)) >= TRAININGS else "checkpoints",
        (means[0], means[1]),
        (stds[0], stds[1]),
        (counts[0], counts[1]),
        difference - half,
        difference + half,
        level,
    )


def seeds_needed(
    difference: float, spread: float, level: float = 0.95, power: float = 0.8
) -> int | None:
    """Return how many observations a side needs for a difference to be shown with some probability.

    The power of the two-sided t-test with n observations a side is a tail of the noncentral t with
    2 (n − 1) degrees of freedom and noncentrality δ √n / s.

    Args:
        difference: the true difference of the means, δ > 0.
        spread: s = √(s_1² + s_2²), the two sides' standard deviations taken together.
        level: of the interval.
        power: the probability with which the interval is to exclude 0.

    Returns:
        The smallest number n >= 2, or None if that is above 100,000.
    """

    def power_of(n: int) -> float:
        bound = stats.t.ppf((1 + level) / 2, 2 * (n - 1))
        return float(stats.nct.sf(bound, 2 * (n - 1), difference * np.sqrt(n) / spread))

    if spread == 0:
        return 2
    if difference <= 0 or power_of(_MOST) < power:
        return None
    low, high = 1, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high
