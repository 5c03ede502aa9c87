"""Which of two is better, and how sure is that.

Three things vary: the training, the samples, and the held-out data. What two sides share (seeds, and with
them data order, initial weights and noise) drops out of their difference, so they are compared in pairs.
What a statement is about decides which of the three its interval holds:

    these checkpoints, on these held-out data      samples
    these checkpoints, on all such data            samples, held-out data
    the methods, on these held-out data            trainings, samples
    the methods, on all such data                  trainings, samples, held-out data

All are about one training split. "The FID Lottery" (2026, arXiv:2606.20536) asks for error bars over
trainings, Miller 2024 (arXiv:2411.00640) for paired differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scoremodel.evaluation.intervals import multiplier, satterthwaite

__all__ = ["SAMPLES", "TRAININGS", "Answer", "Claim", "Comparison", "Side", "Variances", "compare"]

TRAININGS = 3
"""Training seeds that a claim about a method needs, for each side."""

SAMPLES = 3
"""Sampling seeds that it needs: what fewer have in common for all trainings cannot be told."""

Claim = Literal["checkpoints", "methods"]
Answer = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True, eq=False)
class Side:
    """What was measured of one side.

    Args:
        values: one row for each training seed, one column for each sampling seed (or held-out image),
            with shape (J, K); smaller is better.
        train_seeds: the rows' names; None if the other side cannot share them.
        sampling_seeds: the columns' names; None if the other side cannot share them.
        resampled: for each training the values on resampled held-out data, the same for both sides, in
            the mean over the columns, with shape (J, B); None if there are none.
    """

    values: NDArray[np.float64]
    train_seeds: tuple[int, ...] | None = None
    sampling_seeds: tuple[int, ...] | None = None
    resampled: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no table.

        Raises:
            ValueError: if the values have no rows and columns, one is not finite, or the names do not fit.
        """
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"values: shape {self.values.shape} is not allowed, allowed: (J, K)")
        if not np.isfinite(self.values).all():
            bad = int((~np.isfinite(self.values)).sum())
            raise ValueError(f"values: {bad} of {self.values.size} are not finite")
        for names, size in zip(
            (self.train_seeds, self.sampling_seeds), self.values.shape, strict=True
        ):
            if names is not None and len(names) != size:
                raise ValueError(f"seeds: {len(names)} names for {size} is not allowed")


@dataclass(frozen=True)
class Variances:
    """What the difference of two sides varies by, each as the variance of one unit.

        var(difference) = trainings / J + samples / K + both / (J K) + held_out

    for J trainings and K sets of samples of each. A source is one number where the sides are paired, and
    one for each side where they are not.

    Args:
        trainings: of one training; none if it is not known.
        samples: of one set of samples, common to all trainings.
        both: of one set of samples of one training, beyond these two.
        held_out: from the held-out data; None if it is not known.
    """

    trainings: tuple[float, ...]
    samples: tuple[float, ...]
    both: tuple[float, ...]
    held_out: float | None

    def parts(self, trainings: int, samples: int) -> dict[str, float]:
        """Return source → variance of the difference, of the sources that are known.

        Args:
            trainings: J, of each side.
            samples: K, of each training.

        Returns:
            "trainings", "samples" and "held-out data", in squares of the metric's unit.
        """
        found = {}
        if self.trainings:
            found["trainings"] = sum(self.trainings) / trainings
        found["samples"] = sum(self.samples) / samples + sum(self.both) / (trainings * samples)
        if self.held_out is not None:
            found["held-out data"] = self.held_out
        return found


@dataclass(frozen=True)
class Comparison:
    """The difference of two sides' means, first − second, with its interval.

    Args:
        claim: what the interval is about: "methods" if it is over trainings, else "checkpoints".
        population: whether it holds for all data such as the held-out ones, or for these.
        pairs: what the sides share and were paired by: "training seeds", "sampling seeds".
        means: the two means.
        stds: the two standard deviations: over training seeds of methods, else over sampling seeds.
        trainings: J of each side.
        samples: K of each side.
        parts: standard error and degrees of freedom of what trainings and samples vary by, and of what
            the held-out data do, if the claim is about all such data.
        level: the interval's level.
        margin: half of the range of differences that do not matter; None if none was given.
        watched: whether the interval holds at every look.
        gain: how many times narrower the interval is than without pairs.
        variances: what the difference varies by.
    """

    claim: Claim
    population: bool
    pairs: tuple[str, ...]
    means: tuple[float, float]
    stds: tuple[float | None, float | None]
    trainings: tuple[int, int]
    samples: tuple[int, int]
    parts: tuple[tuple[float, float], ...]
    level: float
    margin: float | None
    watched: bool
    gain: float
    variances: Variances

    @property
    def difference(self) -> float:
        """The first mean minus the second."""
        return self.means[0] - self.means[1]

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.hypot(*(error for error, _ in self.parts))

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the standard error."""
        return satterthwaite([(error**2, freedom) for error, freedom in self.parts])[1]

    @property
    def sources(self) -> dict[str, float]:
        """Source → its part of the variance, of those that are known and that the claim is about."""
        found = self.variances.parts(max(self.trainings), max(self.samples))
        if self.claim == "checkpoints":
            found.pop("trainings", None)
        return found

    @property
    def shares(self) -> dict[str, float]:
        """Source → its share of the variance, which sum to 1; none if nothing varies."""
        total = sum(self.sources.values())
        return {name: value / total for name, value in self.sources.items()} if total > 0 else {}

    def interval(self, level: float | None = None) -> tuple[float, float]:
        """Return the ends of the interval at a level, its own by default.

        What the held-out data add can only widen it: the parts' own half widths are added in squares
        (Zou & Donner 2008, doi:10.1002/sim.3095).

        Args:
            level: in (0, 1).

        Returns:
            Its lower and its upper end.
        """
        found = self.level if level is None else level
        reach = math.hypot(
            *(
                multiplier(found, freedom, self.watched) * error if error > 0 else 0.0
                for error, freedom in self.parts
            )
        )
        return self.difference - reach, self.difference + reach

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.interval()[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.interval()[1]

    @property
    def within(self) -> bool:
        """Whether the difference is shown to lie within the margin.

        Two one-sided tests at (1 − level) each (Schuirmann 1987, doi:10.1007/BF01068419): the interval at
        2 level − 1 lies within; at every look, the interval itself.
        """
        if self.margin is None:
            return False
        low, high = self.interval(self.level if self.watched else 2 * self.level - 1)
        return -self.margin < low and high < self.margin

    @property
    def answer(self) -> Answer:
        """What is shown of the first side, where smaller is better."""
        if self.high < 0:
            return "better"
        if self.low > 0:
            return "worse"
        return "equivalent" if self.within else "undecided"

    @property
    def p_value(self) -> float:
        """Two-sided, of the hypothesis that there is no difference, at one look."""
        if self.error == 0:
            return float(self.difference == 0)
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.freedom))


class _Part(NamedTuple):
    """A part of the variance of a mean, which may be negative; its degrees of freedom, and of how many."""

    value: float
    freedom: float
    units: int


def _mean_squares(table: NDArray[np.float64]) -> tuple[list[_Part], list[_Part], list[_Part]]:
    """Return a table's variances of the mean of rows, of columns, and what both hold, if there are any."""
    rows, columns = table.shape
    means = table.mean(1), table.mean(0)
    by_row, by_column = (
        [_Part(float(mean.var(ddof=1)) / len(mean), len(mean) - 1, len(mean))]
        if len(mean) > 1
        else []
        for mean in means
    )
    rest = []
    if rows > 1 and columns > 1:
        left = table - means[0][:, None] - means[1] + table.mean()
        freedom = (rows - 1) * (columns - 1)
        rest = [_Part(float(np.square(left).sum()) / freedom / table.size, freedom, table.size)]
    return by_row, by_column, rest


def _common(side: Side, other: Side) -> Side:
    """Return a side with the sampling seeds that the other has too, if these are enough for pairs."""
    if side.sampling_seeds is None or other.sampling_seeds is None:
        return side
    common = sorted(set(side.sampling_seeds) & set(other.sampling_seeds))
    if len(common) < SAMPLES:
        return side
    columns = [side.sampling_seeds.index(seed) for seed in common]
    return replace(side, values=side.values[:, columns], sampling_seeds=tuple(common))


def _shared(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> bool:
    return first is not None and first == second


class _Tables:
    """The sides' values as one table of differences where both seeds are shared, else as two or three."""

    def __init__(self, first: Side, second: Side, paired: bool) -> None:
        self.sides = [first.values, second.values]
        alike = first.values.shape == second.values.shape
        self.rows = paired and alike and _shared(first.train_seeds, second.train_seeds)
        self.columns = paired and _shared(first.sampling_seeds, second.sampling_seeds)

    def by_training(self) -> tuple[list[_Part], list[_Part]]:
        """Return the parts of the variance over trainings, and those that they share with samples."""
        if self.rows:
            difference = self.sides[0] - self.sides[1]
            if not self.columns:  # each training's mean over its own samples
                difference = difference.mean(1, keepdims=True)
            found = _mean_squares(difference)
            return found[0], found[2]
        parts = [_mean_squares(side) for side in self.sides]
        return [p for one in parts for p in one[0]], [p for one in parts for p in one[2]]

    def by_samples(self) -> list[_Part]:
        """Return the parts of the variance over sets of samples, of these trainings."""
        if self.columns:
            difference = self.sides[0].mean(0) - self.sides[1].mean(0)
            return _mean_squares(difference[None])[1]
        return [part for side in self.sides for part in _mean_squares(side.mean(0)[None])[1]]


def _sum(parts: list[_Part]) -> float:
    return sum(part.value for part in parts)


def _total(parts: list[_Part]) -> tuple[float, float]:
    """Return the standard error of parts that sum up, and its degrees of freedom."""
    variance, freedom = satterthwaite([(part.value, part.freedom) for part in parts])
    return math.sqrt(variance), freedom


def _parts(tables: _Tables, claim: Claim) -> list[_Part]:
    samples = tables.by_samples()
    if claim == "checkpoints":
        return samples
    trainings, common = tables.by_training()
    if _sum(common) > _sum(samples):  # no variance of a source is below 0
        samples = common
    if samples and _sum(common) > _sum(trainings):
        return samples
    return [*trainings, *samples, *(part._replace(value=-part.value) for part in common)]


def _held_out(first: Side, second: Side) -> list[_Part]:
    if first.resampled is None or second.resampled is None:
        return []
    difference = first.resampled.mean(0) - second.resampled.mean(0)
    return [_Part(float(difference.var(ddof=1)), len(difference) - 1, 1)]


def _variances(first: Side, second: Side, tables: _Tables) -> Variances:
    trainings, common = tables.by_training()
    samples, held_out = tables.by_samples(), _held_out(first, second)
    known = min(len(first.values), len(second.values)) > 1

    def of_one(parts: list[_Part]) -> tuple[float, ...]:
        """Return the variance of one unit, without what is common to both sources."""
        kept = max(1 - _sum(common) / _sum(parts), 0.0) if _sum(parts) > 0 else 0.0
        return tuple(kept * part.value * part.units for part in parts)

    return Variances(
        of_one(trainings) if known else (),
        of_one(samples),
        tuple(part.value * part.units for part in common),
        _sum(held_out) if held_out else None,
    )


def _std(side: Side, claim: Claim) -> float | None:
    """Return the spread that stands beside a side's mean: over trainings, else over sets of samples."""
    over = side.values.mean(1) if claim == "methods" else side.values.mean(0)
    return float(over.std(ddof=1)) if len(over) > 1 else None


def compare(
    first: Side,
    second: Side,
    claim: Claim | None = None,
    population: bool = False,
    margin: float | None = None,
    level: float = 0.95,
    watched: bool = False,
) -> Comparison:
    """Return the difference of two sides' means with its interval at `level`.

        first − second ± m_ν √(trainings / J + samples / K + both / (J K) + held_out)

    The variance of the mean of a table of J trainings by K sets of samples is, from its mean squares,
    (MS_J + MS_K − MS_JK) / (J K), of checkpoints MS_K / (J K) alone; the table is of differences where
    both sides share the seeds, so that what is common to both drops out. Sides that share nothing have a
    variance each (Welch 1947). ν is Satterthwaite's (1946), m_ν Student's t or a confidence sequence's.

    Args:
        first: one side.
        second: the other.
        claim: what to speak of; by default of methods if each side has `TRAININGS` trainings and
            `SAMPLES` sampling seeds.
        population: whether to speak of all data such as the held-out ones.
        margin: half of the range of differences that do not matter.
        level: in (0.5, 1).
        watched: whether the interval is to hold at every look.

    Returns:
        The comparison.

    Raises:
        ValueError: if a spread cannot be had: too few trainings or sets of samples, or no resampled values
            for a statement about all such data; or the level is another.
    """
    if not 0.5 < level < 1:
        raise ValueError(f"level: {level} is not allowed, allowed: more than 0.5, less than 1")
    first, second = _common(first, second), _common(second, first)
    trainings = (len(first.values), len(second.values))
    samples = (first.values.shape[1], second.values.shape[1])
    enough = min(trainings) >= TRAININGS and min(samples) >= SAMPLES
    if claim is None:
        claim = "methods" if enough else "checkpoints"
    if claim == "methods" and not enough:
        raise ValueError(
            f"a comparison of methods needs at least {TRAININGS} training seeds and {SAMPLES} "
            "sampling seeds of each"
        )
    if min(samples) < 2:
        raise ValueError("a comparison of checkpoints needs at least 2 sampling seeds of each")
    held_out = [_held_out(first, second)] if population else []
    if [] in held_out:
        raise ValueError("a statement about all such data needs resampled values of both sides")
    tables = _Tables(first, second, paired=True)
    parts, apart = (
        (_total(_parts(one, claim)), *map(_total, held_out))
        for one in (tables, _Tables(first, second, paired=False))
    )
    names = {"training seeds": tables.rows and claim == "methods", "sampling seeds": tables.columns}
    found = Comparison(
        claim,
        population,
        tuple(name for name, shared in names.items() if shared),
        (float(first.values.mean()), float(second.values.mean())),
        (_std(first, claim), _std(second, claim)),
        trainings,
        samples,
        parts,
        level,
        margin,
        watched,
        1.0,
        _variances(first, second, tables),
    )
    width, wider = (one.high - one.low for one in (found, replace(found, parts=apart)))
    return replace(found, gain=wider / width if 0 < width < math.inf else 1.0)
