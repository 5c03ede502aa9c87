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
    """Return the distance to held-out against the NFE with the floor, for one data set's rows.

    Args:
        rows: rows of the table. Samplers whose names differ in a number at the end, their steps, are
            joined by a line.

    Returns:
        The figure as SVG.
    """
    families = rows["sampler"].str.replace(r"_\d+$", "", regex=True)
    markers = dict(zip(sorted(families.unique()), "osD^vP*X" * 8, strict=False))
    several = rows["nfe"].nunique() > 6
    styles = ["-", "--", ":", "-."]

    def draw(axes: Axes) -> None:
        floor, spread = rows["floor"].iloc[0], rows["floor_std"].fillna(0.0).iloc[0]
        axes.axhspan(max(floor - spread, 0), floor + spread, color="0.92", zorder=0)
        axes.axhline(floor, color="0.4", linestyle="--", label="floor: real against real, ± std")
        colours = dict(zip(sorted(markers), range(len(markers)), strict=True))
        models = list(dict.fromkeys(rows["model"]))
        seeds = rows["train_seed"].nunique() > 1
        for (model, seed), part in rows.groupby(["model", "train_seed"], sort=False):
            index = models.index(model)
            for family, points in part.groupby(families, sort=False):
                points = points.sort_values("nfe")
                axes.errorbar(
                    points["nfe"],
                    points["held_out_mean"],
                    yerr=points["held_out_std"].fillna(0.0),
                    marker=markers[family],
                    linestyle=styles[index % len(styles)] if several else "",
                    color=f"C{colours[family] if several else index}",
                    markerfacecolor="white" if several and index else None,
                    capsize=3,
                    label=f"{model}, {family}" + (f", train seed {seed}" if seeds else ""),
                )
        axes.set(xlabel="NFE", ylabel=rows["metric"].iloc[0], xscale="log")
        if several:
            axes.set_yscale("log")
        else:
            axes.set_xticks(sorted(rows["nfe"].unique()))
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.legend(fontsize=8, ncols=2 if several else 1)

    return _svg(draw, *((9.0, 5.6) if several else (5.8, 3.6)))


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
