"""The training loss by noise band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from tasks.report.figures.base import FIGURES, Results
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bands"]


@FIGURES.register("bands", place=30, title="Training loss by noise band", note="")
def bands(results: Results) -> list[str]:
    """Return each model's training loss by noise band."""
    return [_one(name, rows) for name, rows in results.bands.items()]


def _one(name: str, bands: pd.DataFrame) -> str:
    def draw(axes: Sequence[Axes]) -> None:
        for band, curve in bands.groupby("band"):
            axes[0].plot(curve["step"], curve["loss"], label=band)
        scale = "log" if float(bands["loss"].min()) > 0 else "linear"
        axes[0].set(xlabel="step", ylabel="loss", yscale=scale, title=name)
        axes[0].legend()

    return svg(draw)
