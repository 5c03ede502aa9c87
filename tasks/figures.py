"""The report's figures, as SVG text that is the same on every run."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from scoremodel.files import write_text
from tasks.stage import run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distance_figure", "loss_bands_figure", "loss_figure", "main"]

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


def _svg(draw: Callable[[Sequence[Axes]], None], panels: int = 1) -> str:
    with mpl.rc_context(_STYLE):
        height = 3.6 if panels == 1 else 5.4
        figure = Figure(figsize=(5.8 * panels, height), layout="constrained")
        draw(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def loss_figure(curves: dict[str, pd.DataFrame]) -> str:
    """Return the training loss against the step, one line for each model."""

    def draw(axes: Sequence[Axes]) -> None:
        for name, curve in curves.items():
            axes[0].plot(curve["step"], curve["loss"], label=name)
        axes[0].set(xlabel="step", ylabel="loss", yscale="log")
        axes[0].legend()

    return _svg(draw)


def loss_bands_figure(name: str, bands: pd.DataFrame) -> str:
    """Return one model's training loss by noise band."""

    def draw(axes: Sequence[Axes]) -> None:
        for band, curve in bands.groupby("band"):
            axes[0].plot(curve["step"], curve["loss"], label=band)
        axes[0].set(xlabel="step", ylabel="loss", yscale="log", title=name)
        axes[0].legend()

    return _svg(draw)


def distance_figure(rows: pd.DataFrame) -> str:
    """Return the distance to held-out against the NFE with the floor, for one data set's rows.

    Args:
        rows: rows of the table. Samplers whose names differ in a number at the end, their steps, are
            joined by a line; with such lines every model has a panel of its own.

    Returns:
        The figure as SVG.
    """
    families = rows["sampler"].str.replace(r"_\d+$", "", regex=True).rename("family")
    names = sorted(families.unique())
    lines = len(names) < rows["sampler"].nunique()
    models = list(dict.fromkeys(rows["model"]))
    seeds = rows["train_seed"].nunique() > 1
    floor, spread = rows["floor"].iloc[0], rows["floor_std"].fillna(0.0).iloc[0]

    def draw(axes: Sequence[Axes]) -> None:
        for panel in axes:
            panel.axhspan(max(floor - spread, 0), floor + spread, color="0.92", zorder=0)
            panel.axhline(
                floor, color="0.4", linestyle="--", label="floor: real against real, ± std"
            )
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
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.xaxis.set_minor_formatter("")
            panel.legend(fontsize=8)

    return _svg(draw, panels=len(models)) if lines else _svg(draw)


def main(arguments: Sequence[str]) -> None:
    """Draw a table's distance against NFE into an SVG file: `python -m tasks.figures TABLE SVG`."""
    parser = argparse.ArgumentParser(prog="python -m tasks.figures", description=main.__doc__)
    parser.add_argument("table", type=Path, help="a results/table.csv of one data set")
    parser.add_argument("figure", type=Path, help="the SVG file to write")
    given = parser.parse_args(arguments)
    rows = pd.read_csv(given.table)
    if rows["dataset"].nunique() != 1:
        raise ValueError(f"{given.table}: has {rows['dataset'].nunique()} data sets, allowed: 1")
    write_text(given.figure, distance_figure(rows) + "\n")
    print(given.figure)


if __name__ == "__main__":
    run(main)
