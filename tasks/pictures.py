"""Pictures of data: a grid of images, or where 2-D points lie."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scoremodel.io.files import atomic_path

__all__ = ["neighbours_picture", "picture", "save_columns", "save_neighbours", "save_picture"]

_SIDE = 10
_PIXELS = 480


def picture(data: NDArray[Any], levels: int | None) -> Image.Image:
    """Return the first 100 images as a 10×10 grid, or the points' density over two axes.

    Args:
        data: grey levels with shape (N, C, H, W), or vectors with shape (N, D), D >= 2.
        levels: number of grey levels, None for vectors.

    Returns:
        A greyscale or RGB picture about 480 pixels wide.
    """
    if levels is None:
        span = np.linspace(-2.5, 2.5, _PIXELS // 3 + 1)
        density, _, _ = np.histogram2d(data[:, 1], data[:, 0], bins=(span, span))
        shade = 255 - 255 * np.sqrt(density / max(density.max(), 1))
        image = Image.fromarray(shade[::-1].astype(np.uint8))
        return image.resize((_PIXELS, _PIXELS), Image.Resampling.NEAREST)
    return _tiles(data[: _SIDE * _SIDE], levels, _SIDE, _SIDE)


def _tiles(data: NDArray[Any], levels: int, down: int, across: int) -> Image.Image:
    """Return images with shape (N, C, H, W), N <= down · across, in so many rows and columns."""
    channels, height, width = data.shape[1:]
    cells = np.zeros((down * across, channels, height + 1, width + 1), np.uint8)
    shown = data.astype(np.float64) * (255 / (levels - 1))
    cells[: len(shown), :, :height, :width] = shown.round().astype(np.uint8)
    rows = cells.reshape(down, across, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    flat = rows.reshape(down * (height + 1), across * (width + 1), channels)
    image = Image.fromarray(flat[:, :, 0] if channels == 1 else flat)
    scale = max(1, _PIXELS // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def save_columns(columns: NDArray[Any], levels: int, path: str | os.PathLike[str]) -> None:
    """Write images as a PNG, whole or not at all.

    Args:
        columns: grey levels with shape (columns, rows, C, H, W).
        levels: number of grey levels.
        path: file to write.
    """
    rows = columns.swapaxes(0, 1)
    with atomic_path(path) as temporary:
        _tiles(rows.reshape(-1, *rows.shape[2:]), levels, *rows.shape[:2]).save(temporary, "PNG")


def save_picture(data: NDArray[Any], levels: int | None, path: str | os.PathLike[str]) -> None:
    """Write the picture of `data` as a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        picture(data, levels).save(temporary, format="PNG")


def neighbours_picture(
    groups: NDArray[Any], train: NDArray[Any], levels: int | None
) -> Image.Image:
    """Return samples beside their nearest training data.

    Args:
        groups: for each of up to 10 samples itself and 9 neighbours, with shape (N, 10, *).
        train: the training split, which is the ground on which vectors are shown.
        levels: number of grey levels, None for vectors.

    Returns:
        For images a row a sample, the sample first; for vectors the training data in grey, their
        neighbours in blue and the samples in red.
    """
    if levels is not None:
        return picture(groups.reshape(-1, *groups.shape[2:]), levels)
    image = picture(train, None).convert("RGB")
    for points, colour in ((groups[:, 1:], (40, 90, 220)), (groups[:, :1], (220, 40, 40))):
        for x, y in points.reshape(-1, groups.shape[-1])[:, :2]:
            across, up = ((np.array([x, y]) + 2.5) / 5 * _PIXELS).astype(int)
            image.paste(colour, (across - 2, _PIXELS - up - 2, across + 3, _PIXELS - up + 3))
    return image


def save_neighbours(
    groups: NDArray[Any],
    train: NDArray[Any],
    levels: int | None,
    path: str | os.PathLike[str],
) -> None:
    """Write `neighbours_picture` as a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        neighbours_picture(groups, train, levels).save(temporary, format="PNG")
