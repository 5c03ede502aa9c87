"""How far a model is from the data at each noise level, learned beside it, so that all count alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scoremodel.rng import generator

__all__ = ["Uncertainty"]

_FEATURES = 128


class Uncertainty(nn.Module):
    """The logarithm u(r) of the loss L(r) at a noise level r, by which the level's gradients are divided.

    It is learned with the model, whose loss becomes

        L(r) / e^u(r) + u(r),

    smallest where e^u is the mean of L, so that every level has the loss 1. u is linear in 128 random
    Fourier features √2 cos(2π (f ln(r) / 4 + φ)) with f ~ N(0, 1), φ ~ U(0, 1); it is 0 at first.

    Karras et al. 2024, arXiv:2312.02696, eq. 22, after Kendall, Gal and Cipolla 2018, arXiv:1705.07115.

    Args:
        seed: of the features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        stream = generator(seed, "uncertainty")
        turns = 2 * math.pi * torch.randn(_FEATURES, generator=stream)
        self.register_buffer("frequencies", turns)
        self.register_buffer("phases", 2 * math.pi * torch.rand(_FEATURES, generator=stream))
        self.weight = nn.Parameter(torch.zeros(_FEATURES))

    def forward(self, ratio: Tensor) -> Tensor:
        """Return u for noise levels r with shape (B,)."""
        angles = torch.outer(ratio.log() / 4, self.frequencies) + self.phases
        u: Tensor = angles.cos() @ self.weight * math.sqrt(2 / _FEATURES)
        return u

    def balanced(self, losses: Tensor, ratio: Tensor) -> Tensor:
        """Return L / e^u + u for losses L (B,) at noise levels r (B,)."""
        u = self(ratio)
        balanced: Tensor = losses * (-u).exp() + u
        return balanced
