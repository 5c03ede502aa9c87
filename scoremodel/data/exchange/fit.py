"""Image sets brought to a data set's channels, size and grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from scoremodel.data.exchange.image_set import ImageSet

__all__ = ["fitted"]


def fitted(
    images: ImageSet,
    shape: Sequence[int],
    levels: int | None,
    channels: Literal["luma"] | None = None,
    resize: Literal["box", "bicubic"] | None = None,
    quantiser: Literal["rounded", "truncated"] | None = None,
    requantise: bool = False,
) -> ImageSet:
    """Return the images with a data set's shape and grey levels; what was done is in `said`.

    Args:
        images: the images or vectors.
        shape: the data's, (C, H, W) or (D,).
        levels: the data's number of grey levels, None of vectors.
        channels: "luma" turns colour to grey (ITU-R 601-2), where the data are grey.
        resize: filter with which another size is brought to the data's.
        quantiser: how the writer made grey levels of real values, None if that is not known.
        requantise: whether values between the data's grey levels go to the nearest.

    Returns:
        The images as the data are.

    Raises:
        ValueError: one line that says what differs and what is allowed.
    """
    raise NotImplementedError
