"""What a figure of the report is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from scoremodel.registry import Registry
from tasks.results.verdict import Verdict

__all__ = ["BELOW", "FIGURES", "Figure", "Results", "figures"]


@dataclass(frozen=True)
class Results:
    """One data set's results.

    Args:
        rows: its rows of the table.
        curves: model, for people → its training curves.
        bands: model, for people → its loss by noise band.
        records: what `evaluate` wrote of it.
        verdicts: its verdicts, the one to quote first.
    """

    rows: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    bands: Mapping[str, pd.DataFrame]
    records: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict]


Figure = Callable[[Results], list[str]]
"""Results → SVGs that stand side by side, none if there is nothing to show; registered with `title`, `place`,
and `note` below it. Places below `BELOW` are those under the verdict."""

FIGURES: Registry[Figure] = Registry("tasks.report.figures", "figure")

BELOW = 10
"""The first place below the tables and the samples."""


def figures(results: Results) -> list[dict[str, Any]]:
    """Return all figures by their places, each with its title, its place, its note and its drawings."""
    made = sorted(FIGURES.values(), key=lambda figure: figure.place)  # type: ignore[attr-defined]
    drawn = [
        {name: getattr(figure, name) for name in ("title", "place", "note")}
        | {"drawings": figure(results)}
        for figure in made
    ]
    return [one for one in drawn if one["drawings"]]
