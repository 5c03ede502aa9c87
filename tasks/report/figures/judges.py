"""What each judge says of the same two models, and whether they agree."""

from __future__ import annotations

from scoremodel.evaluation.comparison import Comparison
from tasks.report.figures.base import FIGURES, Results
from tasks.report.figures.intervals import Row, intervals_figure
from tasks.results.verdict import Verdict

__all__ = ["agreement", "judges", "judges_of", "judges_strip"]


@FIGURES.register(
    "judges",
    place=3,
    title="The same models before other judges",
    note="Each judge has its own scale: the differences are in units of their own standard errors. "
    "Beside each its value, smaller being better with every judge, and the answer.",
)
def judges(results: Results) -> list[str]:
    """Return `judges_strip` of the verdict to quote."""
    return [judges_strip(one) for one in results.verdicts[:1] if len(judges_of(one)) > 1]


def judges_of(verdict: Verdict) -> dict[str, Comparison]:
    """Return judge → its comparison, the headline metric first; none without a headline."""
    if verdict.headline is None:
        return {}
    return {verdict.metric: verdict.headline, **dict(verdict.judges)}


def _answer(verdict: Verdict, found: Comparison) -> str:
    said = {"better": f"{verdict.models[0]} is better", "worse": f"{verdict.models[1]} is better"}
    return said.get(found.answer, found.answer)


def judges_strip(verdict: Verdict) -> str:
    """Return each judge's difference with its interval, a row each.

    Args:
        verdict: with other judges' comparisons.

    Returns:
        The figure as SVG.
    """
    rows = [
        Row(name, found, found.error, f"{found.difference:+.2g}: {_answer(verdict, found)}")
        for name, found in judges_of(verdict).items()
    ]
    first, second = (f"{model} is better" for model in verdict.models)
    unit = f"difference {' − '.join(verdict.models)}, in its standard errors"
    return intervals_figure(rows, unit, (first, second))


def agreement(verdict: Verdict) -> str | None:
    """Return whether the judges agree, in a sentence; None of a single judge.

    Args:
        verdict: of two models.

    Returns:
        Judges disagree if one finds better what another finds worse.
    """
    found = judges_of(verdict)
    if len(found) < 2:
        return None
    by_answer: dict[str, list[str]] = {}
    for name, one in found.items():
        by_answer.setdefault(_answer(verdict, one), []).append(name)
    if len(by_answer) == 1:
        (answer,) = by_answer
        return f"All {len(found)} judges agree: {answer}."
    said = "; ".join(f"{answer} according to {_list(names)}" for answer, names in by_answer.items())
    if {"better", "worse"} <= {one.answer for one in found.values()}:
        return f"The judges disagree: {said}."
    return f"No judge contradicts another: {said}."


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
