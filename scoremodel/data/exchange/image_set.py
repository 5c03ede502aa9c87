"""A set of images, or of vectors, as it was read from a file, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageSet", "Scale"]

Scale = Literal["unit", "symmetric", "levels"]
"""What a floating-point array's values mean: [0, 1], [−1, 1], or grey levels 0 … L−1."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images or vectors in the order in which they were read.

    Args:
        x: grey levels (uint8) with shape (N, C, H, W), or vectors (float32) with shape (N, D).
        labels: class numbers with shape (N,), or None.
        classes: names of the classes, in the order of their numbers.
        said: one sentence for each thing that was assumed or done.
        levels: number of grey levels, None of vectors.
        quantised: whether it was this reader that rounded real values to grey levels.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    classes: list[str] = field(default_factory=list)
    said: tuple[str, ...] = ()
    levels: int | None = 256
    quantised: bool = False
