"""The mean and the standard deviation that a denoiser takes its data to have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_and_std"]


def mean_and_std(
    parts: Callable[[], Iterable[NDArray[Any]]], levels: int | None
) -> tuple[NDArray[np.float64], float]:
    """Return the mean of data on the models' scale, and their deviation from it.

    Args:
        parts: gives the data, as often as it is called, in parts with shape (N, C, H, W) or (N, D).
        levels: number of grey levels, which become [−1, 1]; None for real values.

    Returns:
        The mean by channel or dimension, with shape (C,) or (D,), and one standard deviation of all
        values around it.
    """

    def scaled(part: NDArray[Any]) -> NDArray[np.float64]:
        x = part.astype(np.float64)
        if levels is not None:  # in place: it is eight times as large as the grey levels
            x *= 2 / (levels - 1)
            x -= 1
        return x

    total: Any = 0
    count = values = 0
    for part in parts():
        axes = (0, *range(2, part.ndim))
        total = total + scaled(part).sum(axis=axes, keepdims=True)
        count += part.size // part.shape[1]
        values += part.size
    mean = total / count
    square = 0.0
    for part in parts():
        x = scaled(part)
        x -= mean
        square += float(np.sum(np.square(x, out=x)))
        del x  # before the next one is made
    return mean.flatten(), math.sqrt(square / values)
