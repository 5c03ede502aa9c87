"""A residual MLP for vectors."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from scoremodel.bounds import Bounds, Share, Size
from scoremodel.networks.base import NETWORKS
from scoremodel.networks.embedding import NoiseEmbedding, in_float32, zero_initialised

__all__ = ["MLP"]


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(width, 2 * width)
        self.inner = nn.Linear(width, width)
        self.activation = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)
        zero_initialised(self.outer)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        h = self.inner(self.norm(x) * (1 + scale) + shift)
        out: Tensor = x + self.outer(self.dropout(self.activation(h)))
        return out


@NETWORKS.register("mlp", dimensions=1)
class MLP(nn.Module):
    """Residual MLP F(x, c_noise) for vectors with shape (B, features).

    Each block is x + W₂ SiLU(W₁ (LayerNorm(x) (1 + a) + b)) with a, b from the noise embedding.

    Args:
        features: dimension of the data.
        width: width of the hidden layers.
        depth: number of residual blocks.
        dropout: dropout probability inside each block.
        classes: number of classes of a conditional network, None for an unconditional one.
    """

    def __init__(
        self,
        features: int,
        width: Size = 128,
        depth: Annotated[int, Bounds(ge=1, le=1000)] = 4,
        dropout: Share = 0.0,
        classes: Size | None = None,
    ) -> None:
        super().__init__()
        self.embedding = NoiseEmbedding(width, classes)
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.leave = zero_initialised(nn.Linear(width, features))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, see `scoremodel.networks`."""
        embedding = self.embedding(c_noise, labels)
        h = in_float32(self.enter, x)  # and so all that goes around the blocks
        for block in self.blocks:
            h = block(h, embedding)
        return in_float32(self.leave, h)
