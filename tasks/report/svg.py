"""Drawing with matplotlib as SVG text that is the same on every run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["svg"]

# Without a fixed salt matplotlib names the parts of an SVG by random numbers.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "scoremodel",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def svg(
    draw: Callable[[Sequence[Axes]], None],
    panels: int = 1,
    size: tuple[float, float] | None = None,
    share: bool = True,
    says: str | None = None,
) -> str:
    """Return what `draw` draws into panels side by side.

    Args:
        draw: draws into the panels' axes.
        panels: how many.
        size: width and height in inches.
        share: whether the panels have one y axis.
        says: what the figure shows, for those who do not see it.

    Returns:
        The figure as SVG.
    """
    with mpl.rc_context(_STYLE):
        height = 3.6 if panels == 1 else 5.4
        figure = Figure(figsize=size or (5.8 * panels, height), layout="constrained")
        draw(figure.subplots(1, panels, sharey=share, squeeze=False)[0])
        out = io.StringIO()
        title = {} if says is None else {"Title": says}
        figure.savefig(out, format="svg", metadata={"Date": None, **title})
    text = out.getvalue()
    return text[text.index("<svg") :].replace("<svg ", '<svg role="img" ', 1)
