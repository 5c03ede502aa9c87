"""The verdict: which model is better, in a sentence, with its interval and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from scoremodel.evaluation.comparison import TRAININGS, Comparison, compare
from tasks.results.table import labels, summary, with_spread

__all__ = ["JUDGED", "Verdict", "headlines", "markdown", "notes", "verdicts"]

JUDGED = ("held_out", "infinity", "kid")
"""The metrics of which smaller is better, by which models can be compared."""

_COLUMNS = ("infinity", "kid", "precision", "recall", "coverage", "authentic")


@dataclass(frozen=True)
class Verdict:
    """Two models on one data set with one sampler.

    Args:
        dataset: name of the data set.
        sampler: name of the sampler.
        metric: what was compared.
        models: the two models' names.
        comparison: the difference first − second, None if there is no spread to judge it by.
    """

    dataset: str
    sampler: str
    metric: str
    models: tuple[str, str]
    comparison: Comparison | None

    @property
    def sentence(self) -> str:
        """The verdict as people read it."""
        first, second = self.models
        where = f"{self.dataset}, {self.sampler}, {self.metric}"
        found = self.comparison
        if found is None:
            return (
                f"{where}: no verdict on {first} and {second}: it takes 2 sampling seeds of these "
                f"checkpoints, or {TRAININGS} training seeds of each model."
            )
        shown = [
            f"{name} ({with_spread(mean, std)})"
            for name, mean, std in zip(self.models, found.means, found.stds, strict=True)
        ]
        if found.verdict == "no difference shown":
            claim = f"no difference shown between {shown[0]} and {shown[1]}"
        else:
            claim = f"{shown[0]} is {found.verdict} than {shown[1]}"
        counts = " and ".join(dict.fromkeys(map(str, found.counts)))
        half = (found.high - found.low) / 2
        digits = 3 if half == 0 else max(0, 1 - math.floor(math.log10(half)))
        ends = ", ".join(f"{end:+.{digits}f}" for end in (found.low, found.high))
        if found.subject == "methods":
            worth = f"over {counts} training seeds of each"
        else:
            worth = (
                f"these checkpoints only, over {counts} sets of samples of each; "
                f"the methods would take {TRAININGS} training seeds"
            )
        text = (
            f"{where}: {claim}: difference {found.difference:+.{digits}f}, "
            f"{found.level * 100:g} % interval [{ends}], {worth}."
        )
        if found.seeds is not None:
            least, most = found.seeds
            kind = "training seeds" if found.subject == "methods" else "sets of samples"
            counted = ["more than can be had" if n is None else f"{n}" for n in (least, most)]
            text += (
                f" To show one with a probability of 80 % would take {counted[0]} {kind} of each if it "
                f"is as large as the interval allows, {counted[1]} if it is as small as it seems."
            )
        return text


def verdicts(
    records: Sequence[dict[str, Any]], metric: str = "held_out", level: float = 0.95
) -> list[Verdict]:
    """Return one verdict for each data set, sampler and pair of models, in the records' order.

    Each interval stands alone: of twenty true "no difference" some one will seem to be one.

    Args:
        records: what `evaluate` wrote; the first sampler's verdict is the one to quote.
        metric: one of `JUDGED`.
        level: the intervals' level.

    Returns:
        The verdicts; none for a single model.

    Raises:
        ValueError: if the metric is none of `JUDGED`, or two records of a pair were judged by
            different extractors or numbers of samples.
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
            how = {
                f"{record['metric']} of {record['count']} samples on data {record['data_sha256'][:8]}"
                for side in sides
                for record in side
            }
            if len(how) != 1:
                raise ValueError(
                    f"{dataset}, {sampler}: {pair[0]} and {pair[1]} cannot be compared, they were "
                    f"judged by {' and '.join(sorted(how))}"
                )
            values = [[record[metric]["by_seed"] for record in side] for side in sides]
            try:
                comparison = compare(values[0], values[1], level)
            except ValueError:  # a single sampling seed
                comparison = None
            name = sides[0][0]["metric"]
            shown = {"held_out": name, "infinity": f"{name}, N → ∞", "kid": f"KID, {name}"}[metric]
            found.append(Verdict(dataset, sampler, shown, (pair[0], pair[1]), comparison))
    return found


def headlines(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the verdicts' sentences; of a single model, where it stands between data and noise.

    Args:
        records: what `evaluate` wrote.

    Returns:
        At least one sentence for each data set.
    """
    found = [verdict.sentence for verdict in verdicts(records)]
    judged = {sentence.split(", ")[0] for sentence in found}
    for record in records:
        if record["dataset"] in judged:
            continue
        judged.add(record["dataset"])
        mine, floor = record["held_out"], record["floor"]
        gaussian = record["gaussian"]["held_out"]
        found.append(
            f"{record['dataset']}, {record['sampler']}, {record['metric']}: {record['model']} is at "
            f"{with_spread(mine['mean'], mine['std'])}, real data are at "
            f"{with_spread(floor['value'], floor['std'])}, a Gaussian of the data's mean and "
            f"covariance is at {with_spread(gaussian['mean'], gaussian['std'])}."
        )
    return found


def notes(record: dict[str, Any]) -> list[str]:
    """Return what a reader of one record should know: signs of copying, and too few samples."""
    found = list(record["warnings"])
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


def markdown(records: Sequence[dict[str, Any]], rows: pd.DataFrame) -> str:
    """Return verdict, table and what a reader should know, for a pull request.

    Args:
        records: what `evaluate` wrote.
        rows: the table.

    Returns:
        Markdown, the same for the same records.
    """
    read = labels()
    lines = ["# Verdict", "", *(f"- {sentence}" for sentence in headlines(records))]
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
        f"- {record['dataset']}, {record['model']}, {record['sampler']}, train seed "
        f"{record['train_seed']}: {note}."
        for record in records
        for note in notes(record)
    ]
    if said:
        lines += ["", "## To know", "", *said]
    return "\n".join(lines) + "\n"
