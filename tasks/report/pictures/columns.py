"""Images in columns, a row for each thing that is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.tiles import tiles
from tasks.report.pictures.base import PICTURES

__all__ = ["columns"]


@PICTURES.register("columns")
def columns(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> Image.Image:
    """Return the array `columns`, grey levels with shape (columns, rows, C, H, W), as a picture."""
    rows = arrays["columns"].swapaxes(0, 1)
    return tiles(rows.reshape(-1, *rows.shape[2:]), info["levels"], *rows.shape[:2])
