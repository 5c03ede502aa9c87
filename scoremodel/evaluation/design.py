"""What a decision would take: more sets of samples, or more trainings, and how many seconds that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from scoremodel.evaluation.comparison import Comparison
from scoremodel.evaluation.intervals import multiplier, satterthwaite

__all__ = ["Costs", "Design", "chance_to_decide", "needed", "next_steps"]

_MOST = 2000
_GROWTH = 1.25  # from one number of sets of samples to the next, where both numbers may grow


@dataclass(frozen=True)
class Costs:
    """What more observations cost, in seconds, for both sides together.

    Args:
        training: of one training of each side.
        samples: of one set of samples of one training of each side.
    """

    training: float
    samples: float


@dataclass(frozen=True)
class Design:
    """So many trainings and sets of samples of each.

    Args:
        trainings: J of each side.
        samples: K of each training.
        error: the standard error of the difference to be expected.
        freedom: its degrees of freedom.
        seconds: what it costs beyond what there is; None if that is not known.
    """

    trainings: int
    samples: int
    error: float
    freedom: float
    seconds: float | None


def _design(found: Comparison, trainings: int, samples: int, costs: Costs | None) -> Design:
    """Return what a comparison would be with so many trainings and sets of samples of each."""
    of, had = found.variances, (max(found.trainings), max(found.samples))
    parts: list[tuple[float, float]] = [(value / samples, samples - 1) for value in of.samples]
    if found.claim == "methods":
        both = sum(of.both) / max(len(of.trainings), 1) / (trainings * samples)
        parts += [(value / trainings + both, trainings - 1) for value in of.trainings]
    else:
        parts += [(value / (trainings * samples), samples - 1) for value in of.both]
    if found.population and of.held_out is not None:
        parts.append((of.held_out, np.inf))
    variance, freedom = satterthwaite(parts)
    seconds = None
    if costs is not None:
        more = trainings * samples - had[0] * had[1]
        seconds = (trainings - had[0]) * costs.training + more * costs.samples
    return Design(trainings, samples, float(np.sqrt(variance)), freedom, seconds)


def _noncentral_t(t: float, freedom: float, noncentrality: float) -> float:
    """Return the distribution function of the noncentral t."""
    found = float(stats.nct.cdf(t, freedom, noncentrality))
    # scipy's is not a number in some far tails, where the normal distribution is near enough.
    return float(stats.norm.cdf(t - noncentrality)) if np.isnan(found) else found


def chance_to_decide(
    difference: float,
    error: float,
    freedom: float,
    margin: float | None,
    level: float = 0.95,
    watched: bool = False,
) -> float:
    """Return the probability that a comparison will not be undecided.

    That the interval leaves out 0 is two tails of the noncentral t with noncentrality δ / s; that both
    one-sided tests reject is the part of it that remains between (Phillips 1990, doi:10.1007/BF01063556).

    Args:
        difference: the true difference δ.
        error: the standard error s that is to be expected.
        freedom: its degrees of freedom.
        margin: half of the range of differences that do not matter; None if there is none.
        level: of the interval.
        watched: whether the interval holds at every look; what earlier looks decide is left out.

    Returns:
        A probability.
    """
    if error == 0:
        return 1.0
    freedom = min(freedom, 1e6)  # up to which scipy's noncentral t holds
    bound, apart = multiplier(level, freedom, watched), abs(difference) / error
    shown = 1 - _noncentral_t(bound, freedom, apart) + _noncentral_t(-bound, freedom, apart)
    if margin is None:
        return shown
    bound = multiplier(level if watched else 2 * level - 1, freedom, watched)
    below = _noncentral_t(-bound, freedom, (abs(difference) - margin) / error)
    above = _noncentral_t(bound, freedom, (abs(difference) + margin) / error)
    return min(shown + max(below - above, 0.0), 1.0)


def needed(found: Comparison, costs: Costs | None = None, power: float = 0.8) -> Design | None:
    """Return the cheapest design that decides with some probability, if the difference is as it seems.

    Args:
        found: an undecided comparison.
        costs: what more costs; without it only one number grows: the trainings of methods, the sets of
            samples of checkpoints.
        power: the probability.

    Returns:
        The design, with more than there was; None if nothing within 2,000 does: the
        held-out data, or the number of trainings, set the limit.
    """
    j, k = max(found.trainings), max(found.samples)

    def decides(design: Design) -> bool:
        chance = chance_to_decide(
            found.difference,
            design.error,
            design.freedom,
            found.margin,
            found.level,
            found.watched,
        )
        return chance >= power

    def fewest(start: int, design_of: Callable[[int], Design]) -> Design | None:
        if start > _MOST or not decides(design_of(_MOST)):
            return None
        low, high = start - 1, _MOST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decides(design_of(middle)) else (middle, high)
        return design_of(high)

    if found.claim == "checkpoints":
        return fewest(k + 1, lambda samples: _design(found, j, samples, costs))
    numbers = {round(k * _GROWTH**step) for step in range(20)} if costs is not None else {k}

    def with_samples(samples: int) -> Design | None:
        start = j + (samples == k)
        return fewest(start, lambda trainings: _design(found, trainings, samples, costs))

    designs = map(with_samples, sorted(numbers))
    possible = [design for design in designs if design is not None]
    return min(possible, key=lambda design: design.seconds or 0.0, default=None)


def next_steps(found: Comparison, costs: Costs, seconds: float = 3600.0) -> dict[str, Design]:
    """Return what so many seconds would do, spent on one source: "trainings", or "samples".

    Args:
        found: a comparison.
        costs: what more costs.
        seconds: how many.

    Returns:
        Source → the design, the one with the smallest standard error first. More trainings are no
        answer to a question about checkpoints.
    """
    j, k = max(found.trainings), max(found.samples)
    tried = {"samples": (j, k + int(seconds / (costs.samples * j)))}
    if found.claim == "methods":
        tried["trainings"] = (j + int(seconds / (costs.training + k * costs.samples)), k)
    designs = {source: _design(found, *size, costs) for source, size in tried.items()}
    return dict(sorted(designs.items(), key=lambda item: item[1].error))
