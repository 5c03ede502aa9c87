"""A U-Net for images of any size and number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from scoremodel.bounds import Bounds, Length, Share, Size
from scoremodel.networks.base import NETWORKS
from scoremodel.networks.embedding import NoiseEmbedding, in_float32, zero_initialised
from scoremodel.precision import without_autocast

__all__ = ["UNet"]


class _Norm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels (Ba, Kiros, Hinton 2016, arXiv:1607.06450).

    Channels lie side by side in the memory layout used here, where torch's kernel for it is several
    times as fast as group normalisation's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        # CUDA's autocast would make float32 of it, and of all that it meets later: twice the bytes. The
        # kernel sums in float32 whatever it is given.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with without_autocast(x):
            h = functional.layer_norm(
                x.permute(0, 2, 3, 1), self.normalized_shape, weight, bias, self.eps
            )
        return h.permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """Self-attention over the pixels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _Norm(channels)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)
        self.kernels: list[SDPBackend] | None = None  # torch's choice
        zero_initialised(self.project_out)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        # Views of the channels-last layout: a flatten of the pixels would copy all of it.
        qkv = self.project_in(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, -1, 3 * channels)
        q, k, v = qkv[:, None].chunk(3, dim=3)
        with nullcontext() if self.kernels is None else sdpa_kernel(self.kernels):
            h = functional.scaled_dot_product_attention(q, k, v)
        h = h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = x + self.project_out(h)
        return out

    def allow_second_derivatives(self) -> None:
        """Do without the fast kernels, whose derivative has none; results differ by rounding."""
        self.kernels = [SDPBackend.MATH]


class _Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the noise embedding."""

    def __init__(self, inside: int, outside: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = _Norm(inside)
        self.conv_in = nn.Conv2d(inside, outside, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outside)
        self.norm_out = _Norm(outside)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)
        zero_initialised(self.conv_out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        out: Tensor = self.skip(x) + self.conv_out(self.dropout(h))
        return out


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    """Return images with pixels repeated to `size`, in their own type under CUDA's autocast too."""
    with without_autocast(x):
        return functional.interpolate(x, size=size, mode="nearest")


@NETWORKS.register("unet", dimensions=3)
class UNet(nn.Module):
    """U-Net F(x, c_noise) for images with shape (B, channels, H, W), any H and W.

    Level l works on the image halved l times (rounded up) with width · multipliers[l] channels; the
    way up interpolates to the size of the skip it joins, so odd sizes need no padding.

    Ho et al. 2020 (arXiv:2006.11239) with the changes of Song et al. 2021 (arXiv:2011.13456) and
    Karras et al. 2022 (arXiv:2206.00364) that pay on small images: scale-and-shift modulation and
    zero-initialised last layers. Normalisation is by pixel (layer norm).

    Args:
        channels: number of the image's channels.
        width: number of channels at full resolution.
        multipliers: width of each level relative to `width`; its length is the number of levels.
        blocks: residual blocks per level and direction.
        attention_levels: levels that end with self-attention (0 is full resolution).
        dropout: dropout probability inside each block.
        checkpointing: whether training keeps no activation inside a block and computes it again on
            the way back: a third more work for a fraction of the memory, and the same gradients
            (Chen et al. 2016, arXiv:1604.06174).
        classes: number of classes of a conditional network, None for an unconditional one.
    """

    def __init__(
        self,
        channels: int,
        width: Size = 32,
        multipliers: Annotated[Sequence[Annotated[int, Bounds(ge=1, le=256)]], Length(1, 16)] = (
            1,
            2,
        ),
        blocks: Annotated[int, Bounds(ge=1, le=64)] = 1,
        attention_levels: Annotated[
            Sequence[Annotated[int, Bounds(ge=0, le=15)]], Length(0, 16, distinct=True)
        ] = (),
        dropout: Share = 0.0,
        checkpointing: bool = False,
        classes: Size | None = None,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        embedding = 4 * width
        self.embedding = NoiseEmbedding(embedding, classes)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        here = width
        skips = []
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(_Block(here, width * multiplier, embedding, dropout))
                here = width * multiplier
                if level in attention_levels:
                    stage.append(_Attention(here))
                skips.append(here)
            self.down.append(stage)
        self.middle = _Block(here, here, embedding, dropout)
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(_Block(here + skips.pop(), width * multiplier, embedding, dropout))
                here = width * multiplier
                if level in attention_levels:
                    stage.append(_Attention(here))
            self.up.append(stage)
        last = zero_initialised(nn.Conv2d(here, channels, 3, padding=1))
        self.leave = nn.Sequential(_Norm(here), nn.SiLU(), last)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, see `scoremodel.networks`."""
        embedding = self.embedding(c_noise, labels)
        h = self.enter(x)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            if level > 0:
                h = functional.avg_pool2d(h, 2, ceil_mode=True)
            for layer in stage:  # type: ignore[attr-defined]
                if isinstance(layer, _Block):
                    h = self._run(layer, h, embedding)
                    skips.append(h)
                else:
                    h = skips[-1] = self._run(layer, h)
        h = self._run(self.middle, h, embedding)
        for stage in self.up:
            for layer in stage:  # type: ignore[attr-defined]
                if isinstance(layer, _Block):
                    skip = skips.pop()
                    if skip.shape[-2:] != h.shape[-2:]:
                        h = _enlarged(h, skip.shape[-2:])
                    h = self._run(layer, torch.cat([h, skip], dim=1), embedding)
                else:
                    h = self._run(layer, h)
        return in_float32(self.leave, h)

    def _run(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        out: Tensor
        if self.checkpointing and torch.is_grad_enabled():
            out = checkpoint(layer, *inputs, use_reentrant=False)
        else:
            out = layer(*inputs)
        return out
