"""Two models and their difference on one scale (Gardner & Altman 1986, doi:10.1136/bmj.292.6522.746)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from tasks.files.layout import EXTERNAL
from tasks.report.figures.base import FIGURES, Results
from tasks.report.svg import svg
from tasks.results.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["View", "estimation", "estimation_plot", "values_of", "view"]

_WIDER = 1.6  # times the height without it that the floor may cost


@FIGURES.register(
    "estimation",
    place=1,
    title="The two models, and their difference",
    note="Left: a dot for each training, small ones for its sets of samples; lines join those from the same "
    "noise. Right, on the same scale: the difference with its interval, under each statement, the one to "
    "quote first.",
)
def estimation(results: Results) -> list[str]:
    """Return `estimation_plot` of the verdict to quote."""
    return [estimation_plot(verdict, results.records) for verdict in results.verdicts[:1]]


def values_of(
    verdict: Verdict, records: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances to held-out data of a verdict's two models, trainings by sets of samples."""
    first, second = (
        np.array(
            [
                record["held_out"]["by_seed"]
                for record in records
                if (record["dataset"], record["model"]) == (verdict.dataset, model)
                and record["sampler"] in (verdict.sampler, EXTERNAL)
            ],
            dtype=np.float64,
        )
        for model in verdict.models
    )
    return first, second


class View(NamedTuple):
    """What part of the metric's axis is seen.

    Args:
        low: its lower end.
        high: its upper end.
        lines: what lies within, by name.
        beyond: what does not.
    """

    low: float
    high: float
    lines: dict[str, float]
    beyond: dict[str, float]


def view(verdict: Verdict, values: Sequence[NDArray[np.float64]]) -> View:
    """Return what part of the metric's axis shows the values, the margin and the intervals.

    The floor may widen it by so much that the rest stays legible; the Gaussian may not.

    Args:
        verdict: the two models'.
        values: each model's.

    Returns:
        The view, with a little room at both ends.
    """
    zero = float(values[1].mean())
    seen = [float(value) for side in values for value in side.flat]
    for one in verdict.statements:
        seen += [zero + end for end in (one.low, one.high) if np.isfinite(end)]
    if verdict.headline is not None and verdict.headline.margin is not None:
        seen += [zero - verdict.headline.margin, zero + verdict.headline.margin]
    low, high = min(seen), max(seen)
    span = high - low or 1.0
    if verdict.floor is not None:
        ends = min(low, verdict.floor), max(high, verdict.floor)
        if ends[1] - ends[0] <= _WIDER * span:
            low, high = ends
    room = 0.05 * (high - low or 1.0)
    low, high = low - room, high + room
    known = {"floor": verdict.floor, "Gaussian": verdict.gaussian}
    lines = {name: value for name, value in known.items() if value is not None}
    within = {name: value for name, value in lines.items() if low <= value <= high}
    beyond = {name: value for name, value in lines.items() if name not in within}
    return View(low, high, within, beyond)


def estimation_plot(verdict: Verdict, records: Sequence[Mapping[str, Any]]) -> str:
    """Return two models' values, and beside them the difference with its interval on the same scale.

    The right panel's axis is the left one's less the second model's mean, so that the difference lies as
    high as the first model's mean.

    Args:
        verdict: the two models'.
        records: what `evaluate` wrote, of these models and maybe others.

    Returns:
        The figure as SVG.
    """
    values = values_of(verdict, records)
    seen = view(verdict, values)
    zero = float(values[1].mean())
    first, second = verdict.models
    found = verdict.headline

    def sides(panel: Axes) -> None:
        places = [
            number + np.linspace(-0.2, 0.2, len(side)) if len(side) > 1 else np.array([number])
            for number, side in enumerate(values)
        ]
        if found is not None and found.pairs and values[0].shape == values[1].shape:
            # From the same noise sets of samples are pairs, else trainings with the same seed are.
            same = "sampling seeds" in found.pairs
            ends = values if same else [side.mean(1, keepdims=True) for side in values]
            for training, rows in enumerate(zip(*ends, strict=True)):
                across = [place[training] for place in places]
                panel.plot(across, np.stack(rows), color="0.75", linewidth=0.8, zorder=1)
        for number, (place, side) in enumerate(zip(places, values, strict=True)):
            colour = f"C{number}"
            panel.plot(place, side, "o", color=colour, markersize=3.5, alpha=0.55, zorder=2)
            panel.plot(
                place, side.mean(1), "o", color=colour, markersize=8, markeredgecolor="w", zorder=3
            )
            panel.hlines(
                side.mean(), number, 1.6, color=colour, linewidth=1, linestyle=":", zorder=1
            )
        panel.set_xticks((0, 1), verdict.models)
        panel.set(xlim=(-0.5, 1.6), ylim=(seen.low, seen.high), ylabel=verdict.metric)
        panel.grid(visible=False, axis="x")

    def difference(panel: Axes) -> None:
        panel.axhline(zero, color="C1", linewidth=1)
        if found is None:
            panel.text(0.5, 0.5, "no interval", ha="center", transform=panel.transAxes)
        elif found.margin is not None:
            panel.axhspan(zero - found.margin, zero + found.margin, color="0.9", zorder=0)
        panel.axhline(float(values[0].mean()), color="C0", linewidth=1, linestyle=":", zorder=1)
        for place, one in enumerate(verdict.statements):
            # An interval at every look may be infinite: it reaches to the edge.
            ends = np.clip((zero + one.low, zero + one.high), seen.low, seen.high)
            wide = 2.5 if place == 0 else 1.2
            panel.vlines(place, *ends, color="k", linewidth=wide, zorder=2)
            panel.plot(place, zero + one.difference, "o", color="k", markersize=4 + wide, zorder=3)
        names = [
            f"{one.claim},\n{'all such' if one.population else 'these'} data:\n{one.answer}"
            for one in verdict.statements
        ]
        panel.set_xticks(range(len(names)), names, fontsize=8.5)
        panel.set_xlim(-0.6, max(len(names), 1) - 0.4)
        panel.tick_params(left=False, labelleft=False)
        panel.grid(visible=False)
        panel.spines["left"].set_visible(False)
        functions: Any = (lambda value: value - zero, lambda value: value + zero)
        shifted = panel.secondary_yaxis("right", functions=functions)
        shifted.set_ylabel(f"difference {first} − {second}")

    def draw(axes: Sequence[Axes]) -> None:
        sides(axes[0])
        difference(axes[1])
        handles: list[Artist] = []
        styles: dict[str, Any] = {"floor": "--", "Gaussian": "-."}
        for name, style in styles.items():
            label = "floor: real against real" if name == "floor" else name
            if name in seen.lines:
                for panel in axes:
                    panel.axhline(seen.lines[name], color="0.4", linestyle=style, zorder=1)
                handles.append(Line2D([], [], color="0.4", linestyle=style, label=label))
            elif name in seen.beyond:
                value = seen.beyond[name]
                where = "above" if value > seen.high else "below"
                handles.append(
                    Line2D([], [], linestyle="", label=f"{label}: {value:.3g}, {where} the view")
                )
        if found is not None:
            handles.append(
                Line2D([], [], color="k", marker="o", label=f"{found.level * 100:g} % interval")
            )
            if found.margin is not None:
                handles.append(Patch(color="0.9", label=f"no matter: within ± {found.margin:.2g}"))
        axes[0].figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)

    means = " and ".join(
        f"{model} at {side.mean():.4g}" for model, side in zip(verdict.models, values, strict=True)
    )
    intervals = "".join(
        f"; {one.claim}, {'all such' if one.population else 'these'} data: difference "
        f"{one.difference:+.2g}, from {one.low:+.2g} to {one.high:+.2g}, {one.answer}"
        for one in verdict.statements
    )
    says = f"{verdict.metric}, {verdict.sampler}: {means}{intervals}"
    return svg(draw, panels=2, size=(5.4, 4.4), says=says)
