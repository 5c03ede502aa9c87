"""A grid of images, or where points lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.report.pictures.base import PICTURES

__all__ = ["PIXELS", "grid", "picture", "tiles"]

_SIDE = 10
PIXELS = 480


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


def tiles(data: NDArray[Any], levels: int, down: int, across: int) -> Image.Image:
    """Return images with shape (N, C, H, W), N <= down · across, in so many rows and columns."""
    channels, height, width = data.shape[1:]
    cells = np.zeros((down * across, channels, height + 1, width + 1), np.uint8)
    shown = data.astype(np.float64) * (255 / (levels - 1))
    cells[: len(shown), :, :height, :width] = shown.round().astype(np.uint8)
    rows = cells.reshape(down, across, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    flat = rows.reshape(down * (height + 1), across * (width + 1), channels)
    image = Image.fromarray(flat[:, :, 0] if channels == 1 else flat)
    scale = max(1, PIXELS // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
