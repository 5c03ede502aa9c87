"""Pixels with L grey levels 0 … L−1 against the models' scale [−1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bin_width", "quantise", "to_unit"]


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
