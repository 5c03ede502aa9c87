"""How the tour's figures look, and where they are written."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams.update(
    {
        "svg.hashsalt": "scoremodel",  # or parts of the file would be named by random numbers
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


def figure(panels: int, width: float = 3.4, height: float = 3.2) -> tuple[Figure, list]:
    """Return a figure and its panels, side by side."""
    drawn = Figure(figsize=(width * panels, height), layout="constrained")
    return drawn, list(drawn.subplots(1, panels, squeeze=False)[0])


def save(drawn: Figure, script: str) -> None:
    """Write the figure as an SVG beside the script that drew it."""
    drawn.savefig(Path(script).with_suffix(".svg"), metadata={"Date": None})
