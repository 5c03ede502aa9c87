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

    def scaled() -> Iterable[NDArray[np.float64]]:
        for part in parts():
            x = part.astype(np.float64)
            yield x if levels is None else x * (2 / (levels - 1)) - 1

    total: Any = 0
    count = values = 0
    for x in scaled():
        total = total + x.sum(axis=(0, *range(2, x.ndim)), keepdims=True)
        count += x.size // x.shape[1]
        values += x.size
    mean = total / count
    square = sum(float(np.sum((x - mean) ** 2)) for x in scaled())
    return mean.flatten(), math.sqrt(square / values)
