"""Score fields in the plane, and the paths that follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.report.pictures.base import PICTURES
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["field"]


@PICTURES.register("field")
def field(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> str:
    """Return score fields that point to where the data are, and the paths that follow them.

    Args:
        arrays: `data` with shape (N, 2); for each noise level n `noisy_n` with shape (N, 2), data
            with its noise, and `score_n`, ∇ ln p at `places` with shape (M, 2), whose length is an
            arrow's colour; where there are some, `paths` with shape (steps, paths, 2).
        info: `ratios`, r = sigma_t / alpha_t of the levels.

    Returns:
        The figure as SVG.
    """
    places, paths = arrays["places"], arrays.get("paths")
    span = float(abs(places).max())

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
        for number, ratio in enumerate(info["ratios"]):
            panel, score = axes[number], arrays[f"score_{number}"]
            ground(panel, arrays[f"noisy_{number}"])
            length = np.linalg.norm(score, axis=1)
            unit = score / np.maximum(length, 1e-12)[:, None]
            panel.quiver(*places.T, *unit.T, np.log10(length + 1e-6), scale=24, width=0.004)
            panel.set_title(f"score at r = {ratio:.2g}")
        if paths is not None:
            ground(axes[-1], arrays["data"])
            axes[-1].plot(paths[:, :, 0], paths[:, :, 1], color="C0", linewidth=0.7)
            axes[-1].plot(*paths[-1].T, "o", color="C3", markersize=2.5)
            axes[-1].set_title("probability flow")

    panels = len(info["ratios"]) + (paths is not None)
    return svg(draw, panels, (3.3 * panels, 3.5))
