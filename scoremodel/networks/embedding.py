"""Parts that the networks share: how they are told the noise level, and how they start."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoremodel.precision import without_autocast

__all__ = ["NoiseEmbedding", "in_float32", "zero_initialised"]

_Layer = TypeVar("_Layer", bound=nn.Module)


def zero_initialised(layer: _Layer) -> _Layer:
    """Return `layer` with weights and bias zero, so that its block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer` of x, computed in the type of its weights under autocast too: a network's ends.

    A denoiser multiplies what comes out of the network by up to r = sigma_t / alpha_t, and its rounding
    with it. The ends have few channels and cost little: Dhariwal and Nichol 2021, arXiv:2105.05233,
    keep their last layers in float32 as well.
    """
    with without_autocast(x):
        out: Tensor = layer(x.to(next(layer.parameters()).dtype))
    return out


class NoiseEmbedding(nn.Module):
    """Embed c_noise = ln(sigma_t / alpha_t) / 4 as sines and cosines, then two linear layers.

    The frequencies are log-spaced from ½ to 16 radians per unit of c_noise, which itself spans about
    [−1.2, 1.3]. (A sinusoid of period 10,000 fed with a time in [0, 1] would be constant.) A class
    adds its own vector before the last activation, and so does "no class".

    Args:
        features: width of the embedding.
        classes: number of classes, None for an unconditional network.
        frequencies: number of frequencies.
    """

    def __init__(self, features: int, classes: int | None = None, frequencies: int = 16) -> None:
        super().__init__()
        spaced = torch.linspace(math.log(0.5), math.log(16.0), frequencies).exp()
        self.register_buffer("frequencies", spaced, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies, features),
            nn.SiLU(),
            nn.Linear(features, features),
        )
        self.table = None if classes is None else nn.Embedding(classes + 1, features)

    def forward(self, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the embedding with shape (B, features); labels are −1 for no class, None is −1 for all."""
        angle = c_noise[:, None] * self.get_buffer("frequencies").to(c_noise.dtype)
        embedded: Tensor = self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.table is not None:
            # The table's last row stands for "no class".
            none = self.table.num_embeddings - 1
            row = (
                embedded.new_full((1,), none, dtype=torch.int64)
                if labels is None
                else labels % (none + 1)
            )
            embedded = embedded + self.table(row)
        return functional.silu(embedded)
