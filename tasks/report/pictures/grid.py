"""A grid of images, or where points lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.tiles import PIXELS, tiles
from tasks.report.pictures.base import PICTURES

__all__ = ["grid", "picture"]

_SIDE = 10


@PICTURES.register("grid")
def grid(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> Image.Image:
    """Return `picture` of the array `data`."""
    return picture(arrays["data"], info["levels"])


def picture(data: NDArray[Any], levels: int | None) -> Image.Image:
    """Return the first 100 images as a 10×10 grid, or the points' density over two axes.

    Args:
        data: grey levels with shape (N, C, H, W), or vectors with shape (N, D), D >= 2.
        levels: number of grey levels, None for vectors.

    Returns:
        A greyscale or RGB picture about 480 pixels wide.
    """
    if levels is None:
        span = np.linspace(-2.5, 2.5, PIXELS // 3 + 1)
        density, _, _ = np.histogram2d(data[:, 1], data[:, 0], bins=(span, span))
        shade = 255 - 255 * np.sqrt(density / max(density.max(), 1))
        image = Image.fromarray(shade[::-1].astype(np.uint8))
        return image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST)
    return tiles(data[: _SIDE * _SIDE], levels, _SIDE, _SIDE)
