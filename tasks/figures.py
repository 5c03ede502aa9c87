"""The report's figures, as SVG text that is the same on every run."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from scoremodel.io.files import write_text
from tasks.stage import run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Field",
    "Panel",
    "distance_figure",
    "field_figure",
    "loss_bands_figure",
    "loss_figure",
    "main",
    "panels_figure",
]

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


@dataclass(frozen=True)
class Field:
    """A score field in the plane at one noise level.

    Args:
        ratio: r = sigma_t / alpha_t.
        noisy: data with that noise, y = x_t / alpha_t, with shape (N, 2).
        places: where the score is drawn, in y, with shape (M, 2).
        score: ∇ ln p(y) there with shape (M, 2).
    """

    ratio: float
    noisy: NDArray[np.floating]
    places: NDArray[np.floating]
    score: NDArray[np.floating]


@dataclass
class Panel:
    """One of several drawings side by side.

    Args:
        title: its title.
        x: what runs to the right.
        y: what runs up.
        lines: label → (x, y) of a drawn line.
        dashed: label → (x, y) of a dashed line, in the colour of the line at its place.
        bars: label → (height, standard deviation or None).
        level: height of a dashed line across, or None.
        limits: lowest and highest y, or None.
    """

    title: str
    x: str
    y: str
    lines: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    dashed: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    bars: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    level: float | None = None
    limits: tuple[float, float] | None = None


def panels_figure(panels: Sequence[Panel]) -> str:
    """Return drawings side by side as SVG."""

    def draw(axes: Sequence[Axes]) -> None:
        for axis, panel in zip(axes, panels, strict=True):
            for style, lines in (("-", panel.lines), ("--", panel.dashed)):
                for place, (label, (x, y)) in enumerate(lines.items()):
                    axis.plot(x, y, style, color=f"C{place}", label=label)
            for place, (value, std) in enumerate(panel.bars.values()):
                axis.bar(place, value, yerr=std, color=f"C{place}", capsize=4, width=0.6)
            if panel.bars:
                axis.set_xticks(range(len(panel.bars)), list(panel.bars))
            else:
                axis.legend(fontsize=8)
            if panel.level is not None:
                axis.axhline(panel.level, color="0.4", linestyle="--")
            axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, ylim=panel.limits)

    return _svg(draw, len(panels), (4.2 * len(panels), 3.6), share=False)


def _svg(
    draw: Callable[[Sequence[Axes]], None],
    panels: int = 1,
    size: tuple[float, float] | None = None,
    share: bool = True,
) -> str:
    with mpl.rc_context(_STYLE):
        height = 3.6 if panels == 1 else 5.4
        figure = Figure(figsize=size or (5.8 * panels, height), layout="constrained")
        draw(figure.subplots(1, panels, sharey=share, squeeze=False)[0])
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def loss_figure(curves: dict[str, pd.DataFrame]) -> str:
    """Return the training loss against the step, one line for each model."""

    def draw(axes: Sequence[Axes]) -> None:
        for name, curve in curves.items():
            axes[0].plot(curve["step"], curve["loss"], label=name)
        lowest = min(float(curve["loss"].min()) for curve in curves.values())
        # Sliced and implicit score matching have negative losses.
        axes[0].set(xlabel="step", ylabel="loss", yscale="log" if lowest > 0 else "linear")
        axes[0].legend()

    return _svg(draw)


def loss_bands_figure(name: str, bands: pd.DataFrame) -> str:
    """Return one model's training loss by noise band."""

    def draw(axes: Sequence[Axes]) -> None:
        for band, curve in bands.groupby("band"):
            axes[0].plot(curve["step"], curve["loss"], label=band)
        scale = "log" if float(bands["loss"].min()) > 0 else "linear"
        axes[0].set(xlabel="step", ylabel="loss", yscale=scale, title=name)
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
            if rows["nfe"].nunique() == 1:  # a logarithmic axis has no width of its own
                panel.set_xlim(rows["nfe"].iloc[0] / 2, rows["nfe"].iloc[0] * 2)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.xaxis.set_minor_formatter("")
            panel.legend(fontsize=8)

    return _svg(draw, panels=len(models)) if lines else _svg(draw)


def field_figure(
    fields: Sequence[Field], data: NDArray[np.floating], paths: NDArray[np.floating] | None
) -> str:
    """Return score fields that point to where the data are, and the paths that follow them.

    Args:
        fields: the score at falling noise levels; an arrow's colour is its length.
        data: the data themselves with shape (N, 2).
        paths: trajectories with shape (steps, paths, 2), in a panel of their own, or None.

    Returns:
        The figure as SVG.
    """
    span = float(max(abs(one.places).max() for one in fields))

    def ground(panel: Axes, points: NDArray[np.floating]) -> None:
        edges = np.linspace(-span, span, 97)
        density, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))
        panel.imshow(
            np.sqrt(density),
            extent=(-span, span, -span, span),
            origin="lower",
            cmap="Greys",
            vmax=1.6 * np.sqrt(max(density.max(), 1)),
            interpolation="nearest",
        )
        panel.set(xlim=(-span, span), ylim=(-span, span), aspect="equal", xticks=(-1, 0, 1))
        panel.grid(visible=False)

    def draw(axes: Sequence[Axes]) -> None:
        for panel, shown in zip(axes, fields, strict=False):
            ground(panel, shown.noisy)
            length = np.linalg.norm(shown.score, axis=1)
            unit = shown.score / np.maximum(length, 1e-12)[:, None]
            panel.quiver(*shown.places.T, *unit.T, np.log10(length + 1e-6), scale=24, width=0.004)
            panel.set_title(f"score at r = {shown.ratio:.2g}")
        if paths is not None:
            ground(axes[-1], data)
            axes[-1].plot(paths[:, :, 0], paths[:, :, 1], color="C0", linewidth=0.7)
            axes[-1].plot(*paths[-1].T, "o", color="C3", markersize=2.5)
            axes[-1].set_title("probability flow")

    panels = len(fields) + (paths is not None)
    return _svg(draw, panels, (3.3 * panels, 3.5))


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
