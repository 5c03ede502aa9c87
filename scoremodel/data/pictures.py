"""Pictures of images: what a notebook shows, what a script writes."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel.data.scale import quantise
from scoremodel.data.tiles import tiles
from scoremodel.io.files import atomic_path

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["save_grid", "show"]


def show(x: Tensor | NDArray[Any], columns: int | None = None, *, levels: int = 256) -> Image.Image:
    """Return a picture of images, which a notebook shows where it is a cell's last line.

    Args:
        x: images with shape (N, C, H, W), or one (C, H, W), of 1 or 3 channels: real values on the
            models' scale, cut to [−1, 1], or grey levels as integers.
        columns: number of images in a row; None makes about as many rows as columns.
        levels: number of grey levels of integers.

    Returns:
        A greyscale or RGB picture, each pixel a square.

    Raises:
        ValueError: if x is no such images, or a number is out of range.
    """
    images = torch.as_tensor(x).detach().cpu()
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ValueError(
            f"images of shape {tuple(images.shape)} are not allowed, allowed: (N, C, H, W) with 1 or 3 "
            "channels"
        )
    if images.is_floating_point():
        images, levels = quantise(images, 256), 256
    low, high = int(images.min()), int(images.max())
    if not 0 <= low <= high < levels:
        raise ValueError(f"grey levels {low} … {high} are not allowed, allowed: 0 … {levels - 1}")
    across = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if across < 1:
        raise ValueError(f"columns: {columns} is not allowed, allowed: at least 1")
    return tiles(images.numpy(), levels, math.ceil(len(images) / across), across)


def save_grid(
    path: str | os.PathLike[str],
    x: Tensor | NDArray[Any],
    columns: int | None = None,
    *,
    levels: int = 256,
) -> None:
    """Write the picture that `show` returns, whole or not at all, in the format of the file's ending.

    Args:
        path: the file, such as samples.png.
        x: see `show`.
        columns: see `show`.
        levels: see `show`.

    Raises:
        ValueError: as `show`, or if no format has that ending.
    """
    from PIL import Image

    picture = show(x, columns, levels=levels)
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122
    formats = Image.registered_extensions()
    if ending not in formats:
        raise ValueError(
            f"{os.fspath(path)}: ending {ending!r} is not allowed, allowed: .png and others"
        )
    with atomic_path(path) as temporary:
        picture.save(temporary, format=formats[ending])
