"""Intervals of differences, a row each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scoremodel.evaluation.comparison import Comparison
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Row", "intervals_figure", "scaled"]

_NOTHING = 1e-9  # of a difference, the rounding of whose terms is no spread


class Row(NamedTuple):
    """One difference.

    Args:
        label: what it is of.
        found: the comparison.
        unit: what is 1 on the axis, in the metric's unit.
        said: its value and its answer, for people.
    """

    label: str
    found: Comparison
    unit: float
    said: str


def scaled(row: Row) -> tuple[float, float, float]:
    """Return lower end, difference and upper end in the row's unit; infinite where that is nothing."""
    ends = np.array([row.found.low, row.found.difference, row.found.high])
    if row.unit <= _NOTHING * abs(row.found.difference):
        low, middle, high = np.where(ends == 0, 0.0, np.copysign(np.inf, ends)).tolist()
    else:
        low, middle, high = (ends / row.unit).tolist()
    return low, middle, high


def intervals_figure(
    rows: Sequence[Row], unit: str, sides: tuple[str, str], margin: float | None = None
) -> str:
    """Return the differences with their intervals, one below the other.

    Args:
        rows: the first one on top.
        unit: what the axis counts.
        sides: what lies to the left of 0, and to the right.
        margin: half of the range that is no matter, in units.

    Returns:
        The figure as SVG; what is infinite reaches to the edge.
    """
    ends = [scaled(row) for row in rows]
    finite = [abs(end) for row in ends for end in row if np.isfinite(end)]
    edge = 1.08 * max([*finite, margin or 0.0]) or 1.0

    def draw(axes: Sequence[Axes]) -> None:
        panel = axes[0]
        if margin is not None:
            panel.axvspan(-margin, margin, color="0.9", zorder=0)
        panel.axvline(0, color="0.4", linewidth=1)
        for place, (row, one) in enumerate(zip(rows, ends, strict=True)):
            low, middle, high = np.clip(one, -edge, edge)
            colour = {"better": "C0", "worse": "C1"}.get(row.found.answer, "0.35")
            panel.hlines(place, low, high, color=colour, linewidth=2.5 if place == 0 else 1.5)
            panel.plot(middle, place, "o", color=colour, markersize=7 if place == 0 else 5)
            panel.annotate(
                row.said,
                (1.02, place),
                xycoords=panel.get_yaxis_transform(),
                va="center",
                fontsize=9,
            )
        names = [textwrap.fill(row.label, 28) for row in rows]
        panel.set_yticks(range(len(rows)), names, fontsize=9)
        panel.set(xlim=(-edge, edge), ylim=(len(rows) - 0.5, -0.5), xlabel=unit)
        panel.set_title(f"← {sides[0]}", loc="left", fontsize=9)
        panel.set_title(f"{sides[1]} →", loc="right", fontsize=9)
        panel.grid(visible=False, axis="y")

    says = "; ".join(f"{row.label}: {row.said}" for row in rows)
    return svg(draw, size=(5.4, 1.1 + 0.36 * len(rows)), says=says)
