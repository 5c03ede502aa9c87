"""Image sets as other code bases read them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

__all__ = ["Form", "write_images"]

Form = Literal["npz", "folder", "zip"]
"""ADM's npz, EDM's folder of PNGs, EDM's zip."""


def write_images(
    path: str | os.PathLike[str],
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] = (),
    form: Form = "npz",
    levels: int = 256,
) -> tuple[str, ...]:
    """Write images, whole or not at all.

    Args:
        path: the file or folder to write.
        x: grey levels (uint8) with shape (N, C, H, W).
        labels: class numbers with shape (N,), or None.
        classes: names of the classes; with them a zip's `dataset.json` says them.
        form: the format.
        levels: number of grey levels; fewer than 256 are spread over 0 … 255.

    Returns:
        One sentence for each thing that was done to them.

    Raises:
        ValueError: if the images are none of those.
    """
    raise NotImplementedError
