"""EDM2's magnitude-preserving U-Net, Karras et al. 2024 (arXiv:2312.02696), their configuration G.

Every layer keeps the expected magnitude of what goes through it, sqrt(E[x²]) over the channels: rows of
weights have unit norm, sums and concatenations are scaled, and there are no biases and no group norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoremodel.bounds import Bounds, Length, Share, Size, Unit
from scoremodel.networks.base import NETWORKS
from scoremodel.networks.residual import Place, Resampling, places, run
from scoremodel.precision import without_autocast

__all__ = ["EDM2", "UnitWeights", "mp_cat", "mp_silu", "mp_sum", "normalised"]

_EPS = 1e-4
_SILU = 0.596  # sqrt(E[silu(z)²]) of z from N(0, 1)
_LARGEST = 256.0  # activation, beyond which half precision has trouble
_THERE = 1e-5  # how far a magnitude is from 1 by rounding alone


def normalised(x: Tensor, dim: int | tuple[int, ...] = 1) -> Tensor:
    """Return x scaled to magnitude 1 along some axes: x / (1e-4 + |x| / sqrt(n)) of n numbers.

    Karras et al. 2024 (arXiv:2312.02696), equations 47 and 66.

    Args:
        x: of any shape.
        dim: the axes.

    Returns:
        Of the shape and type of x.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=wide)
    scaled: Tensor = x / (_EPS + norm * math.sqrt(norm.numel() / x.numel())).to(x.dtype)
    return scaled


def mp_silu(x: Tensor) -> Tensor:
    """Return silu(x) / 0.596, of magnitude 1 where x is N(0, 1) (arXiv:2312.02696, equation 81)."""
    return functional.silu(x) / _SILU


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return ((1 − t) a + t b) / sqrt((1 − t)² + t²) (arXiv:2312.02696, equation 88).

    Args:
        a: of magnitude 1.
        b: of its shape and magnitude, independent of it.
        share: t, the share of b.

    Returns:
        Of magnitude 1.
    """
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def mp_cat(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return both side by side, scaled to magnitude 1 together (arXiv:2312.02696, equation 103).

    Args:
        a: with N_a channels along axis 1.
        b: with N_b.
        share: t: the squares of both parts' sums are as (1 − t)² to t², however many channels each has.

    Returns:
        [w_a a, w_b b], w_a = C (1 − t) / sqrt(N_a), w_b = C t / sqrt(N_b),
        C = sqrt((N_a + N_b) / ((1 − t)² + t²)).
    """
    count = math.sqrt(a.shape[1] + b.shape[1]) / math.hypot(1 - share, share)
    of_a, of_b = (1 - share) / math.sqrt(a.shape[1]), share / math.sqrt(b.shape[1])
    return torch.cat([count * of_a * a, count * of_b * b], dim=1)


class UnitWeights(nn.Module):
    """Linear layer or convolution whose rows of weights have unit norm, without bias.

    Args:
        inside: channels that come in.
        outside: channels that go out.
        size: side of the convolution's kernel, None for a linear layer.
    """

    def __init__(self, inside: int, outside: int, size: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(outside, inside, *(() if size is None else (size, size)))
        )
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        with without_autocast(x):  # rows are normalised in the weights' own type
            rows = normalised(self.weight, tuple(range(1, self.weight.ndim)))
            rows = rows * (gain / math.sqrt(self.weight[0].numel()))
        if rows.ndim == 2:
            return functional.linear(x, rows)
        return functional.conv2d(x, rows, padding=rows.shape[-1] // 2)


class _Attention(nn.Module):
    """Self-attention over the pixels with queries, keys and values of magnitude 1, "cosine attention".

    Args:
        channels: number of channels.
        head_channels: channels of each head.
        share: share of the attention in the sum.

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(self, channels: int, head_channels: int, share: float) -> None:
        super().__init__()
        self.heads, self.share = max(1, channels // head_channels), share
        if channels % self.heads:
            raise ValueError(
                f"head_channels: {head_channels} is not allowed, allowed: divisors of the {channels} "
                "channels of the blocks with attention"
            )
        self.project_in = UnitWeights(channels, 3 * channels, 1)
        self.project_out = UnitWeights(channels, channels, 1)
        self.kernels: list[SDPBackend] | None = None  # torch's choice

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.project_in(x).permute(0, 2, 3, 1)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, -1)
        q, k, v = normalised(qkv, 4).permute(2, 0, 3, 1, 4)
        with nullcontext() if self.kernels is None else sdpa_kernel(self.kernels):
            h = functional.scaled_dot_product_attention(q, k, v)
        h = h.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return mp_sum(x, self.project_out(h), self.share)

    def allow_second_derivatives(self) -> None:
        """Do without the fast kernels, whose derivative has none; results differ by rounding."""
        self.kernels = [SDPBackend.MATH]


class _Block(nn.Module):
    """Residual block, of the way down with its input normalised at each pixel.

    Args:
        place: where it stands.
        embedding: number of features of the embedding.
        encoder: whether it stands on the way down.
        dropout: dropout probability.
        head_channels: channels of each head of the attention.
        balance: share of the residual branch, and of the attention, in its sum.
    """

    def __init__(
        self,
        place: Place,
        embedding: int,
        encoder: bool,
        dropout: float,
        head_channels: int,
        balance: float,
    ) -> None:
        super().__init__()
        inside, outside, how, attention, _ = place
        self.place, self.encoder, self.balance = place, encoder, balance
        self.resample = nn.Identity() if how == "keep" else Resampling(how, (1, 1))
        self.skip = nn.Identity() if inside == outside else UnitWeights(inside, outside, 1)
        self.conv_in = UnitWeights(outside if encoder else inside, outside, 3)
        self.modulation = UnitWeights(embedding, outside)
        self.gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.conv_out = UnitWeights(outside, outside, 3)
        self.attention = _Attention(outside, head_channels, balance) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resample(x)
        if self.encoder:
            x = normalised(self.skip(x))
        h = self.conv_in(mp_silu(x))
        h = h * (1 + self.modulation(embedding, self.gain))[:, :, None, None]
        h = self.conv_out(self.dropout(mp_silu(h)))
        h = mp_sum(x if self.encoder else self.skip(x), h, self.balance)
        return self.attention(h).clamp(-_LARGEST, _LARGEST)  # type: ignore[no-any-return]


@NETWORKS.register("edm2", dimensions=3, sized=True)
class EDM2(nn.Module):
    """EDM2's U-Net F(x, c_noise, labels) for images with shape (B, channels, H, W).

    Karras et al. 2024 (arXiv:2312.02696), configuration G: 124.7 M parameters for ImageNet-64 with its
    1,000 classes at width 128 ("XS"), 280.2 M at 192 ("S"), 497.8 M at 256, 777.5 M at 320. In training a
    call sets the rows of its weights to magnitude 1, and any call computes with rows of unit norm.

    Args:
        channels: number of the image's channels.
        width: the number of channels that `multipliers` are relative to.
        multipliers: width of each level relative to `width`; its length is the number of levels.
        blocks: residual blocks per level on the way down; the way up has one more.
        attention_resolutions: longer sides, in pixels, of the levels with self-attention; the middle
            has it anyway.
        head_channels: channels of each head of the attention.
        dropout: dropout probability inside each block.
        residual_share: share of a block's residual branch, and of its attention, in the sum with what
            it is added to.
        label_share: share of the class in the embedding.
        skip_share: share of the skip where it is joined.
        checkpointing: whether training keeps no activation inside a block and computes it again on
            the way back: a third more work for a fraction of the memory, and the same gradients
            (Chen et al. 2016, arXiv:1604.06174).
        resolution: longer side of the images that it is made for, in pixels.
        classes: number of classes of a conditional network, None for an unconditional one.
    """

    def __init__(
        self,
        channels: int,
        width: Size = 192,
        multipliers: Annotated[Sequence[Annotated[int, Bounds(ge=1, le=256)]], Length(1, 16)] = (
            1,
            2,
            3,
            4,
        ),
        blocks: Annotated[int, Bounds(ge=1, le=64)] = 3,
        attention_resolutions: Annotated[Sequence[Size], Length(0, 16, distinct=True)] = (16, 8),
        head_channels: Size = 64,
        dropout: Share = 0.0,
        residual_share: Unit = 0.3,
        label_share: Unit = 0.5,
        skip_share: Unit = 0.5,
        checkpointing: bool = False,
        resolution: Size = 64,
        classes: Size | None = None,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.label_share, self.skip_share = label_share, skip_share
        widths = [width * one for one in multipliers]
        features = max(widths)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(widths[0]))
        self.register_buffer("phases", 2 * math.pi * torch.rand(widths[0]))
        self.noise = UnitWeights(widths[0], features)
        self.table = None if classes is None else UnitWeights(classes, features)
        attention = [resolution >> level in attention_resolutions for level in range(len(widths))]
        down, up = places(widths[0], widths, blocks, attention)
        self.enter = UnitWeights(channels + 1, widths[0], 3)
        self.down, self.up = (
            nn.ModuleList(
                _Block(place, features, encoder, dropout, head_channels, residual_share)
                for place in way
            )
            for way, encoder in ((down, True), (up, False))
        )
        self.leave = UnitWeights(widths[0], channels, 3)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, see `scoremodel.networks`."""
        if self.training and torch.is_grad_enabled():
            self._force_magnitudes()
        embedding = self._embedding(c_noise, labels)
        # A channel of ones stands for the biases that there are not.
        h = self.enter(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [h]
        for block in self.down:
            h = run(block, self.checkpointing, h, embedding)
            skips.append(h)
        for block in self.up:
            if block.place.joined:  # type: ignore[union-attr]
                h = mp_cat(h, skips.pop(), self.skip_share)
            h = run(block, self.checkpointing, h, embedding)
        with without_autocast(h):  # as `in_float32` has it
            out: Tensor = self.leave(h.to(self.leave.weight.dtype), self.gain)
        return out

    def _embedding(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return the embedding of noise level and class; no class is a row of zeros."""
        frequencies = self.get_buffer("frequencies")
        angle = c_noise.to(frequencies.dtype)[:, None] * frequencies + self.get_buffer("phases")
        embedding: Tensor = self.noise(math.sqrt(2) * angle.cos())
        if self.table is not None:
            classes = self.table.weight.shape[1]
            if labels is None:
                labels = torch.full_like(c_noise, -1, dtype=torch.int64)
            hot = labels[:, None] == torch.arange(classes, device=labels.device)
            known = self.table(math.sqrt(classes) * hot.to(frequencies.dtype))
            embedding = mp_sum(embedding, known, self.label_share)
        return mp_silu(embedding)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _force_magnitudes(self) -> None:
        """Set each row of weights to magnitude 1, "forced weight normalisation".

        Rows that have it stay as they are to the bit: however many calls there are between two steps,
        the weights are the same, and so is a graph that holds them (hence `data`).
        """
        for layer in self.modules():
            if isinstance(layer, UnitWeights):
                rows = layer.weight.data
                axes = tuple(range(1, rows.ndim))
                norm = torch.linalg.vector_norm(rows, dim=axes, keepdim=True)
                magnitude = norm / math.sqrt(rows[0].numel())
                there = (magnitude - 1).abs() < _THERE
                rows.copy_(torch.where(there, rows, rows / magnitude.clamp(min=_EPS)))
