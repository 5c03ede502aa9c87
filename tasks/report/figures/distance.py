"""The distance against the number of network calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import LogLocator

from tasks.report.figures.base import FIGURES, Results
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distance", "distance_figure"]


@FIGURES.register("distance", place=10, title="Distance against NFE", note="")
def distance(results: Results) -> list[str]:
    """Return `distance_figure` of the results' rows."""
    return [distance_figure(results.rows)]


def distance_figure(rows: pd.DataFrame) -> str:
    """Return the distance to held-out against the NFE with the floor, for one data set's rows.

    Args:
        rows: rows of the table; those whose NFE is not known are left out. Samplers whose names differ
            in a number at the end, their steps, are joined by a line; with such lines every model has a
            panel of its own.

    Returns:
        The figure as SVG.
    """
    rows = rows.dropna(subset="nfe").astype({"nfe": int})
    families = rows["sampler"].str.replace(r"_\d+$", "", regex=True).rename("family")
    names = sorted(families.unique())
    lines = len(names) < rows["sampler"].nunique()
    models = list(dict.fromkeys(rows["model"]))
    seeds = rows["train_seed"].nunique() > 1
    floor, spread = rows["floor"].iloc[0], rows["floor_std"].fillna(0.0).iloc[0]
    said = "floor: real against real, ± std"
    if (rows["floor_count"] != rows["count"]).any():
        said += f", N = {rows['floor_count'].iloc[0]}"

    def draw(axes: Sequence[Axes]) -> None:
        for panel in axes:
            panel.axhspan(max(floor - spread, 0), floor + spread, color="0.92", zorder=0)
            panel.axhline(floor, color="0.4", linestyle="--", label=said)
            panel.set(xlabel="NFE", xscale="log")
        for (model, seed, family), points in rows.groupby(
            ["model", "train_seed", families], sort=False
        ):
            index, place = models.index(model), names.index(family)
            ordered = points.sort_values("nfe")
            label = str(family) if lines else f"{model}, {family}"
            axes[index if lines else 0].errorbar(
                ordered["nfe"],
                ordered["held_out_mean"],
                yerr=ordered["held_out_std"].fillna(0.0),
                marker="osD^vP*X"[place % 8],
                linestyle="-" if lines else "",
                color=f"C{place if lines else index}",
                capsize=3,
                label=label + (f", train seed {seed}" if seeds else ""),
            )
        for panel, model in zip(axes, models if lines else [None], strict=False):
            here = rows if model is None else rows[rows["model"] == model]
            means = here.groupby(["model", "sampler"])[["nfe", "held_out_mean"]].mean()
            ordered = means.sort_values("nfe")
            panel.step(
                ordered["nfe"],
                ordered["held_out_mean"].cummin(),
                where="post",
                color="0.7",
                linewidth=1,
                zorder=0,
                label="Pareto front",
            )
        axes[0].set_ylabel(rows["metric"].iloc[0])
        for panel, model in zip(axes, models, strict=False):
            if lines:
                panel.set(title=model, yscale="log")
                for axis in (panel.xaxis, panel.yaxis):
                    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_formatter("")
            else:
                panel.set_xticks(sorted(rows["nfe"].unique()))
                panel.set_ylim(bottom=0)
            if rows["nfe"].nunique() == 1:  # a logarithmic axis has no width of its own
                panel.set_xlim(rows["nfe"].iloc[0] / 2, rows["nfe"].iloc[0] * 2)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.xaxis.set_minor_formatter("")
            panel.legend(fontsize=8)

    return svg(draw, panels=len(models)) if lines else svg(draw)
