"""Parts that the networks share: how they are told the noise level, and how they start."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["NoiseEmbedding", "zero_initialised"]

_Layer = TypeVar("_Layer", bound=nn.Module)


def zero_initialised(layer: _Layer) -> _Layer:
    """Return `layer` with weights and bias zero, so that its block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class NoiseEmbedding(nn.Module):
    """Embed c_noise = ln(sigma_t / alpha_t) / 4 as sines and cosines, then two linear layers.

    The frequencies are log-spaced from ½ to 16 radians per unit of c_noise, which itself spans about
    [−1.2, 1.3]. (A sinusoid of period 10,000 fed with a time in [0, 1] would be constant.)

    Args:
        features: width of the embedding.
        frequencies: number of frequencies.
    """

    def __init__(self, features: int, frequencies: int = 16) -> None:
        super().__init__()
        spaced = torch.linspace(math.log(0.5), math.log(16.0), frequencies).exp()
        self.register_buffer("frequencies", spaced, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies, features),
            nn.SiLU(),
            nn.Linear(features, features),
            nn.SiLU(),
        )

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding with shape (B, features) of c_noise with shape (B,)."""
        angle = c_noise[:, None] * self.get_buffer("frequencies").to(c_noise.dtype)
        embedded: Tensor = self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))
        return embedded
