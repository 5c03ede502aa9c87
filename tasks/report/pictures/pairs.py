"""Samples of two models from the same noise, one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.tiles import tiles
from tasks.report.pictures.base import PICTURES
from tasks.report.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_difference", "pairs"]

_ACROSS = 16
_MOVES = 400


def by_difference(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.intp]:
    """Return the numbers of pairs by the mean squared difference of the two, the largest first.

    Args:
        first: samples of one model, with shape (N, *).
        second: samples of another, n-th from the same noise as the first one's n-th.

    Returns:
        All numbers below N; of equal differences the lower number first.
    """
    difference = first.astype(np.float64) - second.astype(np.float64)
    return np.argsort(-np.square(difference).reshape(len(first), -1).mean(1), kind="stable")


@PICTURES.register("pairs")
def pairs(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> Image.Image | str:
    """Return the pairs of images that differ most, or where points of one model lie in the other's.

    Args:
        arrays: `first` and `second`, samples of two models with shape (N, *), n-th from the same noise.
        info: `levels`, the number of grey levels, None for vectors; `models`, the two names.

    Returns:
        For images a column a pair, the first model above, those that differ most on the left; for
        vectors a line from each point of the first model to the second's, in the first two axes.
    """
    first, second = arrays["first"], arrays["second"]
    if info["levels"] is None:
        return _moves(first[:_MOVES, :2], second[:_MOVES, :2], info["models"])
    most = by_difference(first, second)[:_ACROSS]
    return tiles(np.concatenate([first[most], second[most]]), info["levels"], 2, len(most))


def _moves(first: NDArray[Any], second: NDArray[Any], models: Sequence[str]) -> str:
    def draw(axes: Sequence[Axes]) -> None:
        ends = np.stack([first, second])
        axes[0].plot(ends[:, :, 0], ends[:, :, 1], color="0.6", linewidth=0.7, zorder=1)
        for number, points in enumerate(ends):
            axes[0].plot(*points.T, ".", color=f"C{number}", markersize=3, label=models[number])
        axes[0].set(aspect="equal")
        axes[0].legend()

    says = f"Samples of {models[0]} and {models[1]}, those from the same noise joined by a line"
    return svg(draw, size=(5.0, 5.0), says=says)
