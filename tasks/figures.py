"""The report's figures, as SVG text that is the same on every run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distance_figure", "loss_bands_figure", "loss_figure"]

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


def _svg(draw: Callable[[Axes], None], width: float = 5.8, height: float = 3.6) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def loss_figure(curves: dict[str, pd.DataFrame]) -> str:
    """Return the training loss against the step, one line for each model."""

    def draw(axes: Axes) -> None:
        for name, curve in curves.items():
            axes.plot(curve["step"], curve["loss"], label=name)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()

    return _svg(draw)


def loss_bands_figure(name: str, bands: pd.DataFrame) -> str:
    """Return one model's training loss by noise band."""

    def draw(axes: Axes) -> None:
        for band, curve in bands.groupby("band"):
            axes.plot(curve["step"], curve["loss"], label=band)
        axes.set(xlabel="step", ylabel="loss", yscale="log", title=name)
        axes.legend()

    return _svg(draw)


def distance_figure(rows: pd.DataFrame) -> str:
    """Return the distance to held-out against the NFE with the floor, for one data set's rows."""
    markers = dict(zip(sorted(rows["sampler"].unique()), "osD^vP*X" * 8, strict=False))

    def draw(axes: Axes) -> None:
        floor, spread = rows["floor"].iloc[0], rows["floor_std"].fillna(0.0).iloc[0]
        axes.axhspan(max(floor - spread, 0), floor + spread, color="0.92", zorder=0)
        axes.axhline(floor, color="0.4", linestyle="--", label="floor: real against real, ± std")
        for index, (model, part) in enumerate(rows.groupby("model", sort=False)):
            for sampler, points in part.groupby("sampler", sort=False):
                axes.errorbar(
                    points["nfe"],
                    points["held_out_mean"],
                    yerr=points["held_out_std"].fillna(0.0),
                    fmt=markers[sampler],
                    color=f"C{index}",
                    capsize=3,
                    label=f"{model}, {sampler}",
                )
        axes.set(xlabel="NFE", ylabel=rows["metric"].iloc[0], xscale="log")
        axes.set_xticks(sorted(rows["nfe"].unique()))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)

    return _svg(draw)
