"""The training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.report.figures.base import FIGURES, Results
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loss"]


@FIGURES.register(
    "loss",
    place=20,
    title="Training loss",
    note="The losses of different processes are averages over different noise levels: compare "
    "shapes, not heights.",
)
def loss(results: Results) -> list[str]:
    """Return the training loss against the step, one line for each model that was trained here."""
    curves = {name: one for name, one in results.curves.items() if one["loss"].notna().any()}
    if not curves:
        return []

    def draw(axes: Sequence[Axes]) -> None:
        for name, curve in curves.items():
            axes[0].plot(curve["step"], curve["loss"], label=name)
        lowest = min(float(curve["loss"].min()) for curve in curves.values())
        # Sliced and implicit score matching have negative losses.
        axes[0].set(xlabel="step", ylabel="loss", yscale="log" if lowest > 0 else "linear")
        axes[0].legend()

    return [svg(draw)]
