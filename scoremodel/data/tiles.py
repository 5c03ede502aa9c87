"""Images beside each other in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PIXELS", "tiles"]

PIXELS = 480
"""About the width of a picture."""


def tiles(data: NDArray[Any], levels: int, down: int, across: int) -> Image.Image:
    """Return images with shape (N, C, H, W), N <= down · across, in so many rows and columns."""
    from PIL import Image

    channels, height, width = data.shape[1:]
    cells = np.zeros((down * across, channels, height + 1, width + 1), np.uint8)
    shown = data.astype(np.float64) * (255 / (levels - 1))
    cells[: len(shown), :, :height, :width] = shown.round().astype(np.uint8)
    rows = cells.reshape(down, across, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    flat = rows.reshape(down * (height + 1), across * (width + 1), channels)
    image = Image.fromarray(flat[:, :, 0] if channels == 1 else flat)
    scale = max(1, PIXELS // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
