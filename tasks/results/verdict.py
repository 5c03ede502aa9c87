"""The verdict: which model is better, in a sentence, with its interval and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from scoremodel.evaluation.comparison import (
    SAMPLES,
    TRAININGS,
    Claim,
    Comparison,
    Side,
    compare,
)
from scoremodel.evaluation.design import Costs, needed, next_steps
from scoremodel.evaluation.distance import infinity_is_stable
from scoremodel.evaluation.intervals import holm
from tasks.files.layout import EXTERNAL, Configuration
from tasks.results.active import called
from tasks.results.table import floor_at, floor_said, labels, summary, with_spread

__all__ = [
    "JUDGED",
    "Metric",
    "Verdict",
    "details",
    "headlines",
    "margin_of",
    "markdown",
    "notes",
    "side",
    "to_know",
    "together",
    "verdicts",
]

Metric = Literal["held_out", "infinity", "kid", "sliced"]
JUDGED: tuple[Metric, ...] = get_args(Metric)
"""The metrics of which smaller is better, by which models can be compared."""

_COLUMNS = ("infinity", "kid", "sliced", "precision", "recall", "coverage", "authentic")
_HOUR = 3600.0


class _Words(NamedTuple):
    """What a side is called of which one drew the samples here, or somebody else did."""

    these: str
    one: str
    several: str

    def counted(self, number: int) -> str:
        return f"{number} {self.one if number == 1 else self.several}"


_OURS = _Words("these checkpoints", "sampling seed", "sampling seeds")
_THEIRS = _Words("these samples", "set of samples", "sets of samples")
_TRAININGS = _Words("", "training seed", "training seeds")
_METHODS = f"{TRAININGS} training seeds with {SAMPLES} sampling seeds"

Applications = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Model's name → application → what was found."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Two models on one data set with one sampler, or a model and samples from elsewhere.

    Args:
        dataset: name of the data set.
        sampler: name of the sampler, EXTERNAL if none is known.
        metric: what was compared, for people.
        models: the two models' names; samples from elsewhere have one in the model's place.
        floor: the metric's floor, if it has one.
        gaussian: what a Gaussian scores.
        margin: share of the floor that is no matter; None if the records do not say.
        statements: the differences first − second, the one to quote first, then wider ones.
        judges: name of another judge → the difference under it.
        costs: what more trainings and samples cost, if it is known.
        elsewhere: whether a side's samples are from elsewhere: nobody knows of its checkpoints and seeds.
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
    elsewhere: bool = False

    @property
    def headline(self) -> Comparison | None:
        """The statement to quote; None if there is no spread to judge by."""
        return self.statements[0] if self.statements else None

    @cached_property
    def sentence(self) -> str:
        """The verdict as people read it."""
        first, second = self.models
        where = ", ".join(
            one for one in (self.dataset, self.sampler, self.metric) if one != EXTERNAL
        )
        found = self.headline
        if found is None:
            of = "each" if self.elsewhere else f"{_OURS.these}, and for the methods {_METHODS}"
            needs = f"it takes {self._words.counted(2)} of {of}"
            return f"{where}: no verdict on {first} and {second}: {needs}."
        text = f"{where}: {self._claim(found)}: {_difference(found)}, {_worth(found, self._words)}."
        text += "".join(f" {self._wider(one)}." for one in self.statements[1:])
        if found.claim == "checkpoints" and not self.elsewhere:
            text += f" A claim about the methods takes {_METHODS}."
        if found.answer == "undecided":
            text += f" {self._price(found)}"
        if against := [
            f"{other.answer} by {name}"
            for name, other in self.judges
            if other.answer in ("better", "worse") and other.answer != found.answer
        ]:
            text += f" It depends on the judge: {first} is {' and '.join(against)}."
        return text

    @property
    def _words(self) -> _Words:
        return _THEIRS if self.elsewhere else _OURS

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
        return f"{_scope(found, self._words).capitalize()}: {said}, [{_ends(found)}]"

    def _price(self, found: Comparison) -> str:
        if found.error == 0:
            return "No seed makes a difference between them."
        design = needed(found, self.costs)
        if design is None:
            return "No number of samples or trainings within reach would decide it."
        if found.claim == "methods":
            what = f"{design.trainings} training seeds with {design.samples} sampling seeds"
        else:
            what = f"{design.samples} {self._words.several}"
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
        if not found.shares:
            return None
        text = "What the difference varies by: " + ", ".join(
            f"{name} {share:.0%}" for name, share in found.shares.items()
        )
        if "trainings" not in found.shares:
            text += ", of these trainings"
        if self.costs is None:
            return f"{text}."
        steps = next_steps(found, self.costs, _HOUR)
        best, design = next(iter(steps.items()))
        more = {
            "trainings": f"{design.trainings - max(found.trainings)} more trainings",
            "samples": f"{design.samples - max(found.samples)} more sampling seeds",
        }[best]
        if design.error > 0.9 * found.error:
            return f"{text}. An hour would hardly narrow it, on whatever it is spent."
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
    said = f"difference {found.difference:+.{_digits(found)}f}"
    if not math.isfinite(found.high):
        return f"{said}, no {kind} from so few"
    return f"{said}, {found.level * 100:g} % {kind} [{_ends(found)}]"


def _scope(found: Comparison, words: _Words) -> str:
    which = "the methods" if found.claim == "methods" else words.these
    return f"{which} on {'all such data' if found.population else 'these held-out data'}"


def _worth(found: Comparison, words: _Words) -> str:
    """Return of what the statement holds, from how many, and what their pairs gained."""
    counts = {_TRAININGS: found.trainings, words: found.samples}
    if max(found.trainings) == 1:
        del counts[_TRAININGS]
    counted = {
        name.several: name.counted(numbers[0])
        if len(set(numbers)) == 1
        else f"{numbers[0]} and {name.counted(numbers[1])}"
        for name, numbers in counts.items()
    }
    paired = [said for name, said in counted.items() if name in found.pairs]
    apart = [said for name, said in counted.items() if name not in found.pairs]
    text = _scope(found, words)
    if paired:
        text += f", in pairs of {' × '.join(paired)}"
    if apart:
        text += f", {'of ' if paired else ''}{' × '.join(apart)} of each"
        if words is _OURS and not (found.claim == "checkpoints" and paired):
            text += ", which are not the same"
    if not paired or found.error == 0 or not math.isfinite(found.high):
        return text
    if found.gain < 1:
        return f"{text}: {1 / found.gain:.1f} times wider than without pairs"
    return f"{text}: {found.gain:.1f} times narrower than without pairs"


def margin_of(record: Mapping[str, Any]) -> float | None:
    """Return which differences of the distance do not matter, if the record says so.

    Args:
        record: what `evaluate` wrote.

    Returns:
        `evaluation.margin` times the floor of as many samples.
    """
    share, value = record.get("margin"), floor_at(record)
    return share * value if share is not None and value > 0 else None


def side(records: Sequence[Mapping[str, Any]], metric: str) -> Side:
    """Return what was measured of one model with one sampler.

    Args:
        records: one for each training seed.
        metric: a metric's name in them, or a judge's of the panel.

    Returns:
        The side; training seeds and sampling seeds are shared with whoever has the same ones, samples
        from elsewhere with nobody.

    Raises:
        ValueError: if a record has no such metric, or has other sampling seeds than the first.
    """
    seeds = records[0]["sampling_seeds"]
    found = []
    for record in records:
        name = called(_configuration(record))
        value = record.get(metric) or (record.get("panel") or {}).get(metric)
        if value is None:
            raise ValueError(f"{name}: the record has no {metric}")
        if record["sampling_seeds"] != seeds:
            raise ValueError(f"{name}: sampling seeds {record['sampling_seeds']}, others {seeds}")
        found.append(value)
    replicates = [record.get("resampled", {}).get(metric) for record in records]
    drawn_here = not _external(records)
    return Side(
        np.array([one["by_seed"] for one in found]),
        tuple(record["train_seed"] for record in records) if drawn_here else None,
        tuple(seeds) if drawn_here else None,
        None if None in replicates else np.array(replicates),
    )


def _external(records: Sequence[Mapping[str, Any]]) -> bool:
    return "external" in records[0]


def _statements(
    sides: Sequence[Side], margin: float | None, level: float, watched: bool
) -> Iterator[Comparison]:
    """Yield what can be said, the statement to quote first."""
    resampled = all(one.resampled is not None for one in sides)
    if min(one.values.shape[1] for one in sides) < 2:
        return
    for population in (False, True)[: 1 + resampled]:
        yield compare(sides[0], sides[1], None, population, margin, level, watched)


def _judges(
    sides: Sequence[Sequence[dict[str, Any]]],
    metric: str,
    claim: Claim,
    level: float,
    watched: bool,
    applications: Applications | None,
) -> Iterator[tuple[str, Comparison]]:
    """Yield what other judges say that both sides were put before; one that cannot be is left out."""
    every = [record for one in sides for record in one]
    names = {name: labels()[f"{name}_mean"] for name in JUDGED if name != metric}
    if not _infinity_judges(every[0]):
        names.pop("infinity", None)
    names |= {name: name for name in every[0].get("panel") or {}}
    for name, label in names.items():
        with suppress(ValueError):
            first, second = (side(one, name) for one in sides)
            yield label, compare(first, second, claim, False, None, level, watched)
    images = [[_images(record, applications) for record in one] for one in sides]
    if all(row and None not in row for row in images):
        with suppress(ValueError):  # of other numbers of images
            first, second = (_of_images(row, one) for row, one in zip(images, sides, strict=True))
            yield (
                "bits/dim by held-out image",
                compare(first, second, claim, False, None, level, watched),
            )


def _infinity_judges(record: Mapping[str, Any]) -> bool:
    """Return whether there are enough samples for FD∞; of an old record that is not known."""
    return "width" in record and infinity_is_stable(record["count"], record["width"])


def _of_images(bits: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> Side:
    """Return a side whose columns are held-out images, which both sides share."""
    values = np.array(bits, dtype=float)
    seeds = tuple(record["train_seed"] for record in records)
    return Side(values, seeds, tuple(range(values.shape[1])))


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
    return Costs(training, samples) if samples > 0 else None


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

    Then come those on each model and sampler beside each set of samples from elsewhere, in whose place
    no sampler is known. Each interval stands alone; `together` says what holds of all at once.

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
    elsewhere: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in records:
        models = groups.setdefault((record["dataset"], record["sampler"]), {})
        models.setdefault(record["model"], []).append(record)
        if _external([record]):
            elsewhere.setdefault(record["dataset"], {})[record["model"]] = [record]
    pairs = [
        (dataset, sampler, models, pair)
        for (dataset, sampler), models in groups.items()
        for pair in combinations(models, 2)
    ]
    pairs += [
        (dataset, sampler, models | others, pair)
        for (dataset, sampler), models in groups.items()
        if not models.keys() <= (others := elsewhere.get(dataset, {})).keys()
        for pair in product(models, others)
    ]
    pairs.sort(key=lambda one: one[1] == EXTERNAL)  # others' among themselves come last
    found = []
    for dataset, sampler, models, pair in pairs:
        sides = [models[name] for name in pair]
        _check(sides, f"{dataset}, {sampler}: {pair[0]} and {pair[1]}", metric)
        one = sides[0][0]
        floor = floor_at(one)
        scale = margin_of(one) if metric == "held_out" else None
        measured = [side(records, metric) for records in sides]
        statements = tuple(_statements(measured, scale, level, watched))
        judges = (
            tuple(_judges(sides, metric, statements[0].claim, level, watched, applications))
            if statements
            else ()
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
                ((one.get("gaussian") or {}).get(metric) or {}).get("mean"),
                one.get("margin") if scale is not None else None,
                statements,
                judges,
                _costs(sides, seconds),
                any(map(_external, sides)),
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
        if metric == "infinity" and not _infinity_judges(record):
            raise ValueError(
                f"{who} cannot be compared by FD∞, which is too small for {record['count']} samples "
                f"of {record.get('width', 'an unknown number of')} features"
            )


def together(found: Sequence[Verdict]) -> str | None:
    """Return what holds of all verdicts at once, by Holm's method, at their own level.

    Args:
        found: verdicts; None is said of fewer than two, or of those that are watched.

    Returns:
        One sentence.
    """
    judged = [(one, one.headline) for one in found if one.headline is not None]
    if len(judged) < 2 or any(headline.watched for _, headline in judged):
        return None
    level = judged[0][1].level
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
    elsewhere = {record["model"] for record in records if _external([record])}
    judged = {verdict.dataset for verdict in found if elsewhere.isdisjoint(verdict.models)}
    alone = []
    for record in records:
        if record["dataset"] in judged:
            continue
        judged.add(record["dataset"])
        mine = record["held_out"]
        gaussian = record["gaussian"]["held_out"]
        alone.append(
            f"{record['dataset']}, {record['sampler']}, {record['metric']}: {record['model']} is at "
            f"{with_spread(mine['mean'], mine['std'])}, real data are at "
            f"{floor_said(record)}, a Gaussian of the data's mean and "
            f"covariance is at {with_spread(gaussian['mean'], gaussian['std'])}"
            + (", so the model is worse than that." if _below_gaussian(record) else ".")
        )
    return alone + said


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
        who = called(_configuration(record))
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
        gaussian, real = record["gaussian"], record["real"]
        shown = [
            {
                "model": row["model"],
                "sampler": row["sampler"],
                "training seeds": "" if row["sampler"] == EXTERNAL else str(row["count"]),
                "NFE": "" if row["nfe"] is None else str(row["nfe"]),
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
                floor_said(record)
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
            f"seeds. The floor is of {record['floor']['count']} real data.*",
        ]
    said = [
        f"- {dataset}, {note}."
        for dataset in dict.fromkeys(record["dataset"] for record in records)
        for note in to_know([record for record in records if record["dataset"] == dataset])
    ]
    if said:
        lines += ["", "## To know", "", *said]
    return "\n".join(lines) + "\n"
