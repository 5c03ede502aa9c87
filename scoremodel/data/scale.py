"""Pixels with L grey levels 0 … L−1 against the models' scale [−1, 1]."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel.bounds import shown

__all__ = ["as_data", "bin_width", "quantise", "to_unit"]


def as_data(x: Tensor | NDArray[Any], levels: int | None) -> Tensor:
    """Return data as a tensor, if they are what a number of grey levels, or its absence, says of them.

    Args:
        x: data with shape (N, C, H, W) or (N, D).
        levels: number of grey levels, None for real-valued data.

    Returns:
        The data themselves, not copied.

    Raises:
        ValueError: if there are none, or they are real numbers with grey levels, or bytes without.
    """
    try:
        data = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"data: {shown(x)} is not allowed, allowed: a tensor or an array"
        ) from None
    if data.ndim < 2 or not data.numel():
        raise ValueError(
            f"data of shape {tuple(data.shape)} are not allowed, allowed: (N, C, H, W) or (N, D)"
        )
    if levels is not None and data.is_floating_point():
        raise ValueError(
            f"data: {data.dtype} with levels={levels} is not allowed, allowed: grey levels as integers, "
            "or levels=None for data on the model's scale"
        )
    if levels is None and data.dtype == torch.uint8:
        raise ValueError(
            "data: torch.uint8 without levels is not allowed, allowed: levels=256 for pixels of 8 bits, "
            "or real values"
        )
    return data


def bin_width(levels: int) -> float:
    """Return 2 / (levels − 1), the distance of two neighbouring grey levels on the models' scale."""
    return 2 / (levels - 1)


def to_unit(pixels: Tensor, levels: int | None) -> Tensor:
    """Return x = 2 v / (levels − 1) − 1 as float32; real-valued data (levels None) pass unchanged."""
    if levels is None:
        return pixels.float()
    return pixels.float() * bin_width(levels) - 1


def quantise(x: Tensor, levels: int | None) -> Tensor:
    """Return the nearest of L ≤ 256 grey levels of x in [−1, 1] as uint8; real-valued data pass unchanged.

    Args:
        x: images or vectors, one for each place of the first dimension.
        levels: L, or None of real-valued data.

    Returns:
        uint8, or float32 of real-valued data.

    Raises:
        ValueError: if a value is not finite, which no grey level stands for.
    """
    if levels is None:
        return x.float()
    if not bool(x.isfinite().all()):
        bad = int((~x.isfinite().reshape(len(x), -1).all(dim=1)).sum())
        raise ValueError(f"{bad} of {len(x)} samples hold a value that is not finite")
    return ((x + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).to(torch.uint8)
