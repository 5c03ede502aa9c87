"""The verdict: which model is better, in a sentence, with its interval and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from scoremodel.evaluation.comparison import TRAININGS, Claim, Comparison, Side, compare
from scoremodel.evaluation.design import Costs, needed, next_steps
from scoremodel.evaluation.distance import infinity_is_stable
from scoremodel.evaluation.intervals import holm
from tasks.files.layout import Configuration
from tasks.results.table import labels, summary, with_spread

__all__ = [
    "JUDGED",
    "Verdict",
    "details",
    "headlines",
    "markdown",
    "notes",
    "side",
    "to_know",
    "together",
    "verdicts",
]

JUDGED = ("held_out", "infinity", "kid", "sliced")
"""The metrics of which smaller is better, by which models can be compared."""

_COLUMNS = ("infinity", "kid", "sliced", "precision", "recall", "coverage", "authentic")
_HOUR = 3600.0

Applications = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Model's name → application → what was found."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Two models on one data set with one sampler.

    Args:
        dataset: name of the data set.
        sampler: name of the sampler.
        metric: what was compared, for people.
        models: the two models' names.
        floor: the metric's floor, if it has one.
        gaussian: what a Gaussian scores.
        margin: share of the floor that is no matter; None if the records do not say.
        statements: the differences first − second, the one to quote first, then wider ones.
        judges: name of another judge → the difference under it.
        costs: what more trainings and samples cost, if it is known.
    """

    dataset: str
    sampler: str
    metric: str
    models: tuple[str, str]
    floor: float | None
    gaussian: float | None
    margin: float | None
    statements: tuple[Comparison, ...]
    judges: tuple[tuple[str, Comparison], ...]
    costs: Costs | None

    @property
    def headline(self) -> Comparison | None:
        """The statement to quote; None if there is no spread to judge by."""
        return self.statements[0] if self.statements else None

    @cached_property
    def sentence(self) -> str:
        """The verdict as people read it."""
        first, second = self.models
        where = f"{self.dataset}, {self.sampler}, {self.metric}"
        found = self.headline
        if found is None:
            return (
                f"{where}: no verdict on {first} and {second}: it takes 2 sampling seeds of these "
                f"checkpoints, or {TRAININGS} training seeds of each model."
            )
        text = f"{where}: {self._claim(found)}: {_difference(found)}, {_worth(found)}."
        text += "".join(f" {self._wider(one)}." for one in self.statements[1:])
        if found.claim == "checkpoints":
            text += f" A claim about the methods takes {TRAININGS} training seeds."
        if found.answer == "undecided":
            text += f" {self._price(found)}"
        if against := [name for name, other in self.judges if _opposed(found, other)]:
            text += f" It depends on the judge: {' and '.join(against)} says the opposite."
        return text

    def _claim(self, found: Comparison) -> str:
        first, second = (
            f"{name} ({with_spread(mean, std)})"
            for name, mean, std in zip(self.models, found.means, found.stds, strict=True)
        )
        if found.answer == "undecided":
            return f"undecided between {first} and {second}"
        if found.answer == "equivalent":
            return f"{first} and {second} are equivalent within {self._margin(found)}"
        claim = f"{first} is {found.answer} than {second}"
        return f"{claim}, by less than {self._margin(found)}" if found.within else claim

    def _margin(self, found: Comparison) -> str:
        return f"{found.margin:.2g} ({(self.margin or 0) * 100:g} % of the floor)"

    def _wider(self, found: Comparison) -> str:
        first = self.models[0]
        said = {
            "undecided": "undecided",
            "equivalent": "equivalent",
            "better": f"{first} is better",
            "worse": f"{first} is worse",
        }[found.answer]
        return f"{_scope(found).capitalize()}: {said}, [{_ends(found)}]"

    def _price(self, found: Comparison) -> str:
        design = needed(found, self.costs)
        if design is None:
            return "No number of samples or trainings within reach would decide it."
        if found.claim == "methods":
            what = f"{design.trainings} training seeds with {design.samples} sampling seeds"
        else:
            what = f"{design.samples} sampling seeds"
        seconds = "" if design.seconds is None else f" ({duration(design.seconds)} more)"
        return (
            f"If the difference is as it seems, to decide with a probability of 80 % takes {what} "
            f"of each{seconds}."
        )

    @property
    def widest(self) -> Comparison | None:
        """The statement that holds of most."""
        return self.statements[-1] if self.statements else None

    @property
    def budget(self) -> str | None:
        """What the difference varies by, and on what the next hour is best spent, for people."""
        found = self.widest
        if found is None:
            return None
        parts = found.variances.parts(max(found.trainings), max(found.samples))
        total = sum(parts.values())
        if total == 0:
            return None
        text = "What the difference varies by: " + ", ".join(
            f"{name} {value / total:.0%}" for name, value in parts.items()
        )
        if "trainings" not in parts:
            text += ", trainings not known from one"
        if self.costs is None:
            return f"{text}."
        steps = next_steps(found, self.costs, _HOUR)
        best, design = next(iter(steps.items()))
        more = {
            "trainings": f"{design.trainings - max(found.trainings)} more trainings",
            "samples": f"{design.samples - max(found.samples)} more sampling seeds",
        }[best]
        gain = 1 - design.error / found.error if found.error > 0 else 0.0
        if best == "samples" and found.claim == "checkpoints" and gain < 0.1:
            return f"{text}. More samples would hardly narrow it: more held-out data would."
        return (
            f"{text}. The next hour is best spent on {best}: {more} of each make the standard error "
            f"{design.error:.2g} in place of {found.error:.2g}."
        )

    @property
    def judged(self) -> str | None:
        """What other judges say, for people."""
        if not self.judges:
            return None
        first = self.models[0]
        said = "; ".join(
            f"{name}: "
            + (f"{first} is {one.answer}" if one.answer in ("better", "worse") else one.answer)
            + f", [{_ends(one)}]"
            for name, one in self.judges
        )
        return f"Other judges: {said}."


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _digits(found: Comparison) -> int:
    half = (found.high - found.low) / 2
    return 3 if half == 0 or not math.isfinite(half) else max(0, 1 - math.floor(math.log10(half)))


def _ends(found: Comparison) -> str:
    return ", ".join(f"{end:+.{_digits(found)}f}" for end in (found.low, found.high))


def _difference(found: Comparison) -> str:
    kind = "interval at every look" if found.watched else "interval"
    return (
        f"difference {found.difference:+.{_digits(found)}f}, {found.level * 100:g} % {kind} "
        f"[{_ends(found)}]"
    )


def _scope(found: Comparison) -> str:
    which = "the methods" if found.claim == "methods" else "these checkpoints"
    return f"{which} on {'all such data' if found.population else 'these held-out data'}"


def _worth(found: Comparison) -> str:
    """Return of what the statement holds, from how many, and what their pairs gained."""
    of = {
        "training seeds": " and ".join(dict.fromkeys(map(str, found.trainings))),
        "sampling seeds": " and ".join(dict.fromkeys(map(str, found.samples))),
    }
    if max(found.trainings) == 1:
        del of["training seeds"]
    counted = " × ".join(f"{number} {name}" for name, number in of.items())
    if not found.pairs:
        return f"{_scope(found)}, {counted} of each, which share nothing"
    return f"{_scope(found)}, in pairs of {counted}: {found.gain:.1f} times narrower than without pairs"


def _opposed(found: Comparison, other: Comparison) -> bool:
    return {found.answer, other.answer} == {"better", "worse"}


def side(records: Sequence[Mapping[str, Any]], metric: str) -> Side:
    """Return what was measured of one model with one sampler.

    Args:
        records: one for each training seed.
        metric: a metric's name in them, or a judge's of the panel.

    Returns:
        The side; training seeds and sampling seeds are shared with whoever has the same ones.
    """
    found = [record[metric] if metric in record else record["panel"][metric] for record in records]
    replicates = [record.get("resampled", {}).get(metric) for record in records]
    return Side(
        np.array([one["by_seed"] for one in found]),
        tuple(record["train_seed"] for record in records),
        tuple(records[0]["sampling_seeds"]),
        None if None in replicates else np.array(replicates),
    )


def _statements(
    sides: Sequence[Side], margin: float | None, level: float, watched: bool
) -> Iterator[Comparison]:
    """Yield what can be said, the statement to quote first."""
    resampled = all(one.resampled is not None for one in sides)
    claims: list[tuple[Claim, bool]] = [("checkpoints", False), ("checkpoints", True)]
    if min(len(one.values) for one in sides) >= TRAININGS:
        claims = [("methods", False), ("methods", True)]
    for claim, population in claims:
        if population and not resampled:
            continue
        try:
            yield compare(sides[0], sides[1], claim, population, margin, level, watched)
        except ValueError:  # a single sampling seed
            return


def _judges(
    sides: Sequence[Sequence[dict[str, Any]]],
    metric: str,
    applications: Applications | None,
) -> Iterator[tuple[str, Side, Side]]:
    """Yield the other judges that both sides were put before."""
    first, second = sides
    read = labels()
    for name in JUDGED:
        stable = name != "infinity" or infinity_is_stable(first[0]["count"], first[0]["width"])
        if name != metric and stable and all(name in record for record in (*first, *second)):
            yield read[f"{name}_mean"], side(first, name), side(second, name)
    panel = [record.get("panel") or {} for record in (*first, *second)]
    for name in panel[0]:
        if all(name in one for one in panel):
            yield name, side(first, name), side(second, name)
    images = [[_images(record, applications) for record in one] for one in sides]
    if all(
        one is not None and len(one) == len(images[0][0] or ()) for row in images for one in row
    ):
        tables = [np.array(row, dtype=float) for row in images]
        names = tuple(range(tables[0].shape[1]))
        seeds = [tuple(record["train_seed"] for record in one) for one in sides]
        yield (
            "bits/dim",
            Side(tables[0], seeds[0], names),
            Side(tables[1], seeds[1], names),
        )


def _images(record: Mapping[str, Any], applications: Applications | None) -> list[float] | None:
    """Return the bits/dim of each held-out image, if the model was asked for its likelihood."""
    name = Configuration(record["dataset"], record["model"], record["train_seed"]).model_name
    found = (applications or {}).get(name, {}).get("likelihood", {})
    return found.get("by_image")


def _costs(
    sides: Sequence[Sequence[dict[str, Any]]], seconds: Mapping[str, Mapping[str, Any]] | None
) -> Costs | None:
    """Return what one training and one set of samples of both sides took, where it is known."""
    training = samples = 0.0
    for records in sides:
        took = [(seconds or {}).get(_configuration(record).name) or {} for record in records]
        trained = [one["train"]["seconds"] for one in took if one.get("train")]
        sampled = [one["sample"]["seconds_per_1000"] for one in took if one.get("sample")]
        if not trained or not sampled:
            return None
        training += float(np.mean(trained))
        samples += float(np.mean(sampled)) * records[0]["count"] / 1000
    return Costs(training, samples)


def _configuration(record: Mapping[str, Any]) -> Configuration:
    return Configuration(
        record["dataset"], record["model"], record["train_seed"], record["sampler"]
    )


def verdicts(
    records: Sequence[dict[str, Any]],
    metric: str = "held_out",
    level: float = 0.95,
    watched: bool = False,
    seconds: Mapping[str, Mapping[str, Any]] | None = None,
    applications: Applications | None = None,
) -> list[Verdict]:
    """Return one verdict for each data set, sampler and pair of models, in the records' order.

    Each interval stands alone; `together` says what holds of all at once.

    Args:
        records: what `evaluate` wrote; the first sampler's verdict is the one to quote.
        metric: one of `JUDGED`.
        level: the intervals' level.
        watched: whether the intervals are to hold at every look.
        seconds: configuration's name → what its stages took, as the ledger has it.
        applications: what else the models were found to do.

    Returns:
        The verdicts; none for a single model.

    Raises:
        ValueError: if the metric is none of `JUDGED`, or is FD∞ of fewer samples than it takes, or two
            records of a pair were judged by different extractors or numbers of samples.
    """
    if metric not in JUDGED:
        raise ValueError(f"metric: {metric!r} is not allowed, allowed: {', '.join(JUDGED)}")
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for record in records:
        models = groups.setdefault((record["dataset"], record["sampler"]), {})
        models.setdefault(record["model"], []).append(record)
    found = []
    for (dataset, sampler), models in groups.items():
        for pair in combinations(models, 2):
            sides = [models[name] for name in pair]
            _check(sides, f"{dataset}, {sampler}: {pair[0]} and {pair[1]}", metric)
            one = sides[0][0]
            margin = one.get("margin") if metric == "held_out" else None
            floor = one["floor"].get("at_count", one["floor"]["value"])
            scale = None if margin is None else margin * floor
            statements = tuple(
                _statements([side(records, metric) for records in sides], scale, level, watched)
            )
            claim = statements[0].claim if statements else None
            judges = tuple(
                (name, compare(first, second, claim, False, None, level, watched))
                for name, first, second in _judges(sides, metric, applications)
                if claim is not None
            )
            shown = {
                "held_out": one["metric"],
                "infinity": f"{one['metric']}, N → ∞",
                "kid": f"KID, {one['metric']}",
                "sliced": f"sliced W2², {one['metric']}",
            }[metric]
            found.append(
                Verdict(
                    dataset,
                    sampler,
                    shown,
                    (pair[0], pair[1]),
                    floor if metric == "held_out" else None,
                    one["gaussian"].get(metric, {}).get("mean"),
                    margin,
                    statements,
                    judges,
                    _costs(sides, seconds),
                )
            )
    return found


def _check(sides: Sequence[Sequence[dict[str, Any]]], who: str, metric: str) -> None:
    """Refuse what cannot be compared."""
    every = [record for side in sides for record in side]
    how = {
        f"{record['metric']} of {record['count']} samples on data {record['data_sha256'][:8]}"
        for record in every
    }
    if len(how) != 1:
        raise ValueError(
            f"{who} cannot be compared, they were judged by {' and '.join(sorted(how))}"
        )
    for record in every:
        if metric == "infinity" and not infinity_is_stable(record["count"], record["width"]):
            raise ValueError(
                f"{who} cannot be compared by FD∞, which is too small for {record['count']} samples "
                f"of {record['width']} features"
            )


def together(found: Sequence[Verdict], level: float = 0.95) -> str | None:
    """Return what holds of all verdicts at once, by Holm's method; None of fewer than two.

    Args:
        found: verdicts.
        level: the probability that all that is said to differ does.

    Returns:
        One sentence.
    """
    judged = [(one, one.headline) for one in found if one.headline is not None]
    if len(judged) < 2:
        return None
    adjusted = holm([headline.p_value for _, headline in judged])
    shown = [
        f"{one.models[0]} is {'better' if headline.difference < 0 else 'worse'} than "
        f"{one.models[1]} ({one.dataset}, {one.sampler}; p = {p:.2g})"
        for (one, headline), p in zip(judged, adjusted, strict=True)
        if p <= 1 - level
    ]
    said = "; ".join(shown) or "no difference is shown"
    return f"Of all {len(judged)} comparisons together, at {level * 100:g} % (Holm): {said}."


def headlines(found: Sequence[Verdict], records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the verdicts' sentences; of a single model, where it stands between data and noise.

    Args:
        found: the records' verdicts.
        records: what `evaluate` wrote.

    Returns:
        At least one sentence for each data set.
    """
    said = [verdict.sentence for verdict in found]
    judged = {verdict.dataset for verdict in found}
    for record in records:
        if record["dataset"] in judged:
            continue
        judged.add(record["dataset"])
        mine, floor = record["held_out"], record["floor"]
        gaussian = record["gaussian"]["held_out"]
        said.append(
            f"{record['dataset']}, {record['sampler']}, {record['metric']}: {record['model']} is at "
            f"{with_spread(mine['mean'], mine['std'])}, real data are at "
            f"{with_spread(floor['value'], floor['std'])}, a Gaussian of the data's mean and "
            f"covariance is at {with_spread(gaussian['mean'], gaussian['std'])}"
            + (", so the model is worse than that." if _below_gaussian(record) else ".")
        )
    return said


def _below_gaussian(record: Mapping[str, Any]) -> bool:
    return bool(record["held_out"]["mean"] > record["gaussian"]["held_out"]["mean"])


def details(found: Sequence[Verdict]) -> list[str]:
    """Return what stands below the sentence to quote: what varies, what other judges say."""
    if not found:
        return []
    return [said for said in (found[0].budget, found[0].judged, together(found)) if said]


def notes(record: dict[str, Any]) -> list[str]:
    """Return what a reader of one record should know: signs of copying, and too few samples."""
    found = list(record["warnings"])
    if _below_gaussian(record):
        found.insert(
            0,
            f"worse than a Gaussian of the data's mean and covariance: "
            f"{record['held_out']['mean']:.4g} where that is at "
            f"{record['gaussian']['held_out']['mean']:.4g}",
        )
    if record["memorised"]:
        real = record["real"]
        found.insert(
            0,
            "lies nearer to training data than new data do: "
            f"{record['authentic']['mean']:.1%} authentic where held-out data are "
            f"{real['authentic']['mean']:.1%}, {record['copies']['mean']:.1%} copies where they are "
            f"{real['copies']['mean']:.1%}",
        )
    return found


def to_know(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the notes on one data set's records, each once, with those whom it concerns."""
    concerned: dict[str, list[str]] = {}
    for record in records:
        who = f"{record['model']}, {record['sampler']}, train seed {record['train_seed']}"
        for note in notes(record):
            concerned.setdefault(note, []).append(who)
    return [
        f"{'; '.join(who) if len(who) < len(records) else 'all'}: {note}"
        for note, who in concerned.items()
    ]


def markdown(
    found: Sequence[Verdict], records: Sequence[dict[str, Any]], rows: pd.DataFrame
) -> str:
    """Return verdict, table and what a reader should know, for a pull request.

    Args:
        found: the records' verdicts.
        records: what `evaluate` wrote.
        rows: the table.

    Returns:
        Markdown, the same for the same records.
    """
    read = labels()
    lines = ["# Verdict", "", *(f"- {sentence}" for sentence in headlines(found, records))]
    if more := details(found):
        lines += ["", "\n\n".join(more)]
    for dataset, here in rows.groupby("dataset", sort=False):
        record = next(one for one in records if one["dataset"] == dataset)
        floor, gaussian, real = record["floor"], record["gaussian"], record["real"]
        shown = [
            {
                "model": row["model"],
                "sampler": row["sampler"],
                "training seeds": str(row["count"]),
                "NFE": str(row["nfe"]),
                "to held-out": with_spread(row["held_out"], row["held_out_std"]),
                "× floor": f"{row['ratio_to_floor']:.2f}",
                **{
                    read[f"{name}_mean"]: with_spread(row[name], row[f"{name}_std"])
                    for name in _COLUMNS
                },
            }
            for row in summary(here)
        ]
        for name, side in (("real data", real), ("Gaussian", gaussian)):
            distance = (
                with_spread(floor["value"], floor["std"])
                if side is real
                else with_spread(side["held_out"]["mean"], side["held_out"]["std"])
            )
            shown.append(
                {"model": name, "to held-out": distance}
                | {
                    read[f"{metric}_mean"]: with_spread(side[metric]["mean"], side[metric]["std"])
                    for metric in _COLUMNS
                    if metric in side
                }
            )
        lines += [
            "",
            f"## {dataset}",
            "",
            pd.DataFrame(shown).fillna("").to_markdown(index=False, disable_numparse=True),
            "",
            f"*{record['metric']}, N = {record['count']}, {len(record['sampling_seeds'])} sampling "
            "seeds; ± is the standard deviation over training seeds, of a single one over sampling "
            "seeds. Real data of the same number are the floor.*",
        ]
    said = [
        f"- {dataset}, {note}."
        for dataset in dict.fromkeys(record["dataset"] for record in records)
        for note in to_know([record for record in records if record["dataset"] == dataset])
    ]
    if said:
        lines += ["", "## To know", "", *said]
    return "\n".join(lines) + "\n"
