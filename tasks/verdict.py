"""The verdict: which model is better, in a sentence, with its interval and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from scoremodel.evaluation.comparison import TRAININGS, Comparison, compare

__all__ = ["JUDGED", "Verdict", "markdown", "verdicts"]

JUDGED = ("held_out", "infinity", "kid")
"""The metrics of which smaller is better, by which models can be compared."""


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
            f"{name} ({mean:.3f} ± {std:.3f})"
            for name, mean, std in zip(self.models, found.means, found.stds, strict=True)
        ]
        if found.verdict == "no difference shown":
            claim = f"no difference shown between {shown[0]} and {shown[1]}"
        else:
            claim = f"{shown[0]} is {found.verdict} than {shown[1]}"
        counts = " and ".join(dict.fromkeys(map(str, found.counts)))
        if found.subject == "methods":
            worth = f"over {counts} training seeds of each"
        else:
            worth = (
                f"these checkpoints only, over {counts} sampling seeds of each; "
                f"the methods would take {TRAININGS} training seeds"
            )
        text = (
            f"{where}: {claim}: difference {found.difference:+.3f}, "
            f"{found.level:.0%} interval [{found.low:+.3f}, {found.high:+.3f}], {worth}."
        )
        if found.seeds is not None:
            least, most = found.seeds
            kind = "training" if found.subject == "methods" else "sampling"
            counted = ["more than can be had" if n is None else f"{n}" for n in (least, most)]
            text += (
                f" To tell them apart would take {counted[0]} {kind} seeds of each if the difference "
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
                f"{record['metric']} of {record['count']} samples"
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


def markdown(records: Sequence[dict[str, Any]], rows: pd.DataFrame) -> str:
    """Return verdict, table and what a reader should know, for a pull request.

    Args:
        records: what `evaluate` wrote.
        rows: the table.

    Returns:
        Markdown, the same for the same records.
    """
    lines = ["# Verdict", ""]
    lines += [f"- {verdict.sentence}" for verdict in verdicts(records)] or ["- One model only."]
    for dataset, here in rows.groupby("dataset", sort=False):
        record = next(one for one in records if one["dataset"] == dataset)
        floor, gaussian = record["floor"], record["gaussian"]["held_out"]
        spread = "" if floor["std"] is None else f" ± {floor['std']:.3f}"
        shown = pd.DataFrame(
            {
                "model": here["model"],
                "train seed": here["train_seed"],
                "sampler": here["sampler"],
                "NFE": here["nfe"],
                "to held-out": _with_spread(here, "held_out"),
                "× floor": here["ratio_to_floor"].map("{:.2f}".format),
                "FD∞": _with_spread(here, "infinity"),
                "KID": _with_spread(here, "kid"),
                "precision": _with_spread(here, "precision"),
                "recall": _with_spread(here, "recall"),
                "coverage": _with_spread(here, "coverage"),
                "authentic": _with_spread(here, "authentic"),
            }
        )
        lines += [
            "",
            f"## {dataset}",
            "",
            shown.to_markdown(index=False, disable_numparse=True),
            "",
            f"*{record['metric']}, N = {record['count']}, {len(record['sampling_seeds'])} sampling "
            f"seeds; real data: {floor['value']:.3f}{spread} (the floor), authentic "
            f"{record['real']['authentic']:.3f}; a Gaussian with the data's mean and covariance: "
            f"{gaussian['mean']:.3f}.*",
        ]
    notes = []
    for record in records:
        name = f"{record['dataset']}, {record['model']}, {record['sampler']}"
        name += f", train seed {record['train_seed']}"
        if record["memorised"]:
            notes.append(
                f"- {name}: **copies training data** more often than new data would seem to."
            )
        notes += [f"- {name}: {warning}." for warning in record["warnings"]]
    if notes:
        lines += ["", "## To know", "", *notes]
    return "\n".join(lines) + "\n"


def _with_spread(rows: pd.DataFrame, metric: str) -> pd.Series[str]:
    means = rows[f"{metric}_mean"].map("{:.3f}".format)
    stds = rows[f"{metric}_std"].map(lambda std: "" if pd.isna(std) else f" ± {std:.3f}")
    return means + stds
