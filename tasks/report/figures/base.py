"""What a figure of the report is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from scoremodel.registry import Registry

__all__ = ["FIGURES", "Figure", "Results", "figures"]


@dataclass(frozen=True)
class Results:
    """One data set's results.

    Args:
        rows: its rows of the table.
        curves: model, for people → its training curves.
        bands: model, for people → its loss by noise band.
    """

    rows: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    bands: Mapping[str, pd.DataFrame]


Figure = Callable[[Results], list[str]]
"""Results → SVGs that stand side by side; registered with `title`, `place`, and `note` below it."""

FIGURES: Registry[Figure] = Registry("tasks.report.figures", "figure")


def figures(results: Results) -> list[dict[str, object]]:
    """Return all figures by their places, each with its title, its note and its drawings."""
    made = sorted(FIGURES.values(), key=lambda figure: figure.place)  # type: ignore[attr-defined]
    return [
        {
            "title": figure.title,  # type: ignore[attr-defined]
            "note": figure.note,  # type: ignore[attr-defined]
            "drawings": figure(results),
        }
        for figure in made
    ]
