"""What the difference of two models varies by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.patches import Patch

from scoremodel.evaluation.comparison import Comparison
from tasks.report.figures.base import FIGURES, Results
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["budget", "budget_bar", "unknown"]

_COLOURS = {"trainings": "C2", "samples": "C4", "held-out data": "C7"}


@FIGURES.register(
    "budget",
    place=2,
    title="What the difference varies by",
    note="Shares of the variance of the difference, with as many trainings and sets of samples as there are; "
    "± is the standard error that each would leave alone.",
)
def budget(results: Results) -> list[str]:
    """Return `budget_bar` of the widest statement of the verdict to quote."""
    widest = [one.statements[-1] for one in results.verdicts[:1] if one.statements]
    return [budget_bar(one) for one in widest if one.shares]


def unknown(found: Comparison) -> dict[str, str]:
    """Return source → why its share is not known, of the sources for which it is not."""
    said = {}
    if not found.variances.trainings:
        said["trainings"] = "not known from one training seed"
    elif found.claim == "checkpoints":
        said["trainings"] = "no part of what is said of these checkpoints"
    if found.variances.held_out is None:
        said["held-out data"] = "not known, nothing was resampled"
    return said


def budget_bar(found: Comparison) -> str:
    """Return the shares of the variance of a difference as one bar, with what is not known in words.

    Args:
        found: a comparison.

    Returns:
        The figure as SVG.
    """
    known, parts, left = found.shares, found.sources, unknown(found)
    said = {
        name: f"{name}: {known[name]:.0%} (± {parts[name] ** 0.5:.2g})"
        if name in known
        else f"{name}: {left[name]}"
        for name in _COLOURS
    }

    def draw(axes: Sequence[Axes]) -> None:
        start, panel, handles = 0.0, axes[0], []
        for name in _COLOURS:
            colour = _COLOURS[name] if name in known else "none"
            if name in known:
                panel.barh(0, known[name], left=start, color=colour, height=0.6)
                start += known[name]
            edge = colour if name in known else "0.6"
            handles.append(Patch(facecolor=colour, edgecolor=edge, label=said[name]))
        panel.set(xlim=(0, 1), ylim=(-0.35, 0.35), yticks=[])
        panel.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        panel.grid(visible=False)
        panel.spines["left"].set_visible(False)
        panel.figure.legend(handles=handles, loc="outside lower left", ncols=1, fontsize=9)

    return svg(draw, size=(5.4, 1.9), says="; ".join(said.values()))
