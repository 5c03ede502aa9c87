"""Samples beside their nearest training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.tiles import PIXELS
from tasks.report.pictures.base import PICTURES
from tasks.report.pictures.grid import picture

__all__ = ["neighbours"]


@PICTURES.register("neighbours")
def neighbours(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> Image.Image:
    """Return samples beside their nearest training data.

    Args:
        arrays: `groups`, for each of up to 10 samples itself and 9 neighbours, with shape
            (N, 10, *); for vectors `ground`, the training data on which they are shown.
        info: `levels`, the number of grey levels, None for vectors.

    Returns:
        For images a row a sample, the sample first; for vectors the training data in grey, their
        neighbours in blue and the samples in red.
    """
    groups = arrays["groups"]
    if info["levels"] is not None:
        return picture(groups.reshape(-1, *groups.shape[2:]), info["levels"])
    image = picture(arrays["ground"], None).convert("RGB")
    for points, colour in ((groups[:, 1:], (40, 90, 220)), (groups[:, :1], (220, 40, 40))):
        for x, y in points.reshape(-1, groups.shape[-1])[:, :2]:
            across, up = ((np.array([x, y]) + 2.5) / 5 * PIXELS).astype(int)
            image.paste(colour, (across - 2, PIXELS - up - 2, across + 3, PIXELS - up + 3))
    return image
