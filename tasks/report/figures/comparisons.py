"""All pairs of models with all samplers, on one scale."""

from __future__ import annotations

from tasks.report.figures.base import FIGURES, Results
from tasks.report.figures.intervals import Row, intervals_figure

__all__ = ["comparisons"]


@FIGURES.register(
    "comparisons",
    place=4,
    title="All pairs and samplers",
    note="The verdict to quote on top. Each interval stands alone: of twenty true “no difference” some one "
    "will seem to be one.",
)
def comparisons(results: Results) -> list[str]:
    """Return the differences of all verdicts in units of the floor, if there are several."""
    judged = [(one, one.headline) for one in results.verdicts if one.headline is not None]
    if len(judged) < 2:
        return []
    quoted, headline = judged[0]
    unit = quoted.floor or 1.0
    rows = [
        Row(
            f"{one.sampler}: {' − '.join(one.models)}",
            found,
            unit,
            f"{found.difference:+.2g}: {found.answer}",
        )
        for one, found in judged
    ]
    margin = None if headline.margin is None else headline.margin / unit
    scale = "floors" if quoted.floor else quoted.metric
    return [intervals_figure(rows, f"difference in {scale}", ("better", "worse"), margin)]
