"""What a judgement says: the sentence, the metrics with their spread, what an N like this can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from scoremodel.evaluation.memorisation import NEAR
from scoremodel.evaluation.metrics.base import ordered_metrics
from tasks.results.table import floor_at, floor_said, with_spread
from tasks.results.verdict import Verdict, margin_of, verdicts

__all__ = ["Judged", "lines", "rows", "sentences"]

_LEVEL, _POWER = 0.95, 0.8


@dataclass(frozen=True)
class Judged:
    """One set of samples.

    Args:
        name: what it goes by.
        whole: the record of all its samples as one set, or the same as `parts` if sets were given.
        parts: the record of its subsets.
    """

    name: str
    whole: Mapping[str, Any]
    parts: Mapping[str, Any]


def sentences(one: Judged) -> list[str]:
    """Return where a set stands, whether it copies, and what so many samples can tell.

    Args:
        one: the set.

    Returns:
        Three sentences.
    """
    record = one.whole
    value, gaussian = record["held_out"], record["gaussian"]["held_out"]
    floor, count = floor_at(record), record["count"]
    share = (
        (value["mean"] - floor) / (gaussian["mean"] - floor)
        if gaussian["mean"] > floor
        else math.nan
    )
    few = record["floor"]["count"]
    which = "" if few == count else f"{few} of them at "
    stands = (
        f"{one.name}: {record['metric']} to held-out {record['dataset']} "
        f"{with_spread(value['mean'], value['std'])} of N = {count}: {which}"
        f"{record['ratio_to_floor']:.2f} times the floor of as many real data, {floor_said(record)}; a "
        f"Gaussian of the data's mean and covariance is at "
        f"{with_spread(gaussian['mean'], gaussian['std'])}"
    )
    if share > 1:
        stands += ", so the samples are worse than that"
    elif not math.isnan(share):
        stands += f", so they are {max(share, 0):.0%} of the way from real data to it"
    return [f"{stands}.", _copies(one), _tells(one)]


def _copies(one: Judged) -> str:
    record = one.whole
    mine, real = record["copies"]["mean"], record["real"]["copies"]["mean"]
    said = (
        f"{one.name}: {mine:.1%} of the samples lie nearer to a training point than {NEAR:.2g} of the "
        f"distance from that to its own neighbour, of held-out data {real:.1%}"
    )
    return f"{said}: {'they copy training data' if record['memorised'] else 'no sign of copying'}."


def _tells(one: Judged) -> str:
    record = one.parts
    std, sets = record["held_out"]["std"], len(record["held_out"]["by_seed"])
    if std is None:
        return (
            f"{one.name}: of one set alone nobody can say how sure that is; it takes more samples."
        )
    # Two-sided at the level, and found with the power (Cohen 1988): by t, of two sides' spreads.
    quantiles = sum(float(stats.t.ppf(p, 2 * (sets - 1))) for p in ((1 + _LEVEL) / 2, _POWER))
    least = quantiles * std * math.sqrt(2 / sets)
    said = (
        f"{one.name}: by the spread of {sets} sets of {record['count']}, two like this that differ by "
        f"{least:.2g} are told apart with a probability of {_POWER:.0%}"
    )
    margin = margin_of(one.whole)
    if margin is None:
        return f"{said}."
    word = "less" if least <= margin else "more"
    return f"{said}; that is {word} than the margin that matters, {margin:.2g}."


def rows(one: Judged) -> list[dict[str, Any]]:
    """Return every metric: of all samples, over the subsets, of real data and of a Gaussian.

    Args:
        one: the set.

    Returns:
        A row for each metric, in the order of the table.
    """
    found = []
    for kind, metric in ordered_metrics().items():
        whole, parts = one.whole[kind], one.parts[kind]
        real, gaussian = one.whole["real"].get(kind), one.whole["gaussian"].get(kind)
        found.append(
            {
                "metric": metric.label,
                f"N = {one.whole['count']}": with_spread(whole["mean"], whole["std"]),
                f"{len(parts['by_seed'])} × {one.parts['count']}": with_spread(
                    parts["mean"], parts["std"]
                ),
                "real data": "" if real is None else with_spread(real["mean"], real["std"]),
                "Gaussian": ""
                if gaussian is None
                else with_spread(gaussian["mean"], gaussian["std"]),
                "better": metric.better,
            }
        )
    for name, spread in one.whole["panel"].items():
        found.append(
            {
                "metric": f"to held-out by {name}",
                f"N = {one.whole['count']}": with_spread(spread["mean"], spread["std"]),
                "better": "lower",
            }
        )
    return found


def _at_whole_floor(one: Judged) -> dict[str, Any]:
    """Return the subsets' record with the floor of all samples: the margin is a share of that."""
    return {**one.parts, "floor": one.whole["floor"]}


def lines(judged: Sequence[Judged]) -> tuple[list[str], list[Verdict]]:
    """Return what there is to say of one set or of two: the verdict first, if there are two.

    Args:
        judged: the sets.

    Returns:
        The sentences, and the verdicts.
    """
    found = verdicts([_at_whole_floor(one) for one in judged]) if len(judged) > 1 else []
    said = [verdict.sentence for verdict in found]
    for one in judged:
        said += sentences(one)
    for one in judged:
        said += [f"{one.name}: {line}" for line in one.whole["warnings"]]
    return list(dict.fromkeys(said)), found
