"""Several drawings side by side: lines, dashed lines, bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tasks.report.pictures.base import PICTURES
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["panels"]


@PICTURES.register("panels")
def panels(_: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> str:
    """Return drawings side by side as SVG.

    Args:
        info: `panels`, of each its `title`, what runs to the right (`x`) and up (`y`), and where it has
            them `lines` and `dashed` (label → (x, y); a dashed line has the colour of the line at its
            place), `bars` (label → (height, standard deviation or None)), `level`, the height of a
            dashed line across, and `limits`, lowest and highest y.

    Returns:
        The figure as SVG.
    """
    given = info["panels"]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, panel in zip(axes, given, strict=True):
            for style, lines in (("-", "lines"), ("--", "dashed")):
                for place, (label, (x, y)) in enumerate(panel.get(lines, {}).items()):
                    axis.plot(x, y, style, color=f"C{place}", label=label)
            bars = panel.get("bars", {})
            for place, (value, std) in enumerate(bars.values()):
                axis.bar(place, value, yerr=std, color=f"C{place}", capsize=4, width=0.6)
            if bars:
                axis.set_xticks(range(len(bars)), list(bars))
            else:
                axis.legend(fontsize=8)
            if "level" in panel:
                axis.axhline(panel["level"], color="0.4", linestyle="--")
            axis.set(
                title=panel["title"],
                xlabel=panel["x"],
                ylabel=panel["y"],
                ylim=panel.get("limits"),
            )

    return svg(draw, len(given), (4.2 * len(given), 3.6), share=False)
