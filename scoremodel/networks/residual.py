"""What the published U-Nets share: where their blocks stand, and the residual U-Net itself.

Song et al. 2021 (arXiv:2011.13456), Dhariwal and Nichol 2021 (arXiv:2105.05233), and both as Karras et
al. 2022 trained them (EDM, arXiv:2206.00364). The networks themselves are `scoremodel.networks.song`
and `scoremodel.networks.adm`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from scoremodel.bounds import Bounds, Length, Share, Size
from scoremodel.networks.embedding import in_float32
from scoremodel.precision import without_autocast

__all__ = [
    "Condition",
    "GroupNorm",
    "PixelAttention",
    "Place",
    "Resampling",
    "ResidualBlock",
    "ResidualUNet",
    "Style",
    "places",
    "run",
    "told_as",
]

_AUGMENTATION = 9  # numbers that describe what EDM's pipeline has done to an image


class Place(NamedTuple):
    """Where a block stands in a U-Net.

    Args:
        inside: channels that come in, those of the skip among them.
        outside: channels that go out.
        resampling: what becomes of the image's sides.
        attention: whether the block ends with self-attention.
        joined: channels of the skip that is joined before the block, 0 for none.
    """

    inside: int
    outside: int
    resampling: Literal["keep", "down", "up"] = "keep"
    attention: bool = False
    joined: int = 0


def places(
    enter: int, widths: Sequence[int], blocks: int, attention: Sequence[bool], sparing: bool = False
) -> tuple[list[Place], list[Place]]:
    """Return where the blocks stand on the way down, and in the middle and on the way up.

    A block of its own halves or doubles the sides between two levels; the middle has two blocks with
    attention after the first; the way up has one block more for each level than the way down, which
    joins what came into the level.

    Args:
        enter: channels of the first convolution.
        widths: channels of each level.
        blocks: blocks of each level on the way down.
        attention: which levels have attention.
        sparing: whether only the last block of a level on the way up has it.

    Returns:
        The places on the way down, and the others.
    """
    here, skips, last = enter, [enter], len(widths) - 1
    down: list[Place] = []
    for level, wide in enumerate(widths):
        if level > 0:
            down.append(Place(here, here, "down"))
            skips.append(here)
        for _ in range(blocks):
            down.append(Place(here, wide, attention=attention[level]))
            skips.append(here := wide)
    up = [Place(here, here, attention=True), Place(here, here)]
    for level in range(last, -1, -1):
        if level < last:
            up.append(Place(here, here, "up"))
        for block in range(blocks + 1):
            joined, attends = skips.pop(), attention[level] and (block == blocks or not sparing)
            up.append(Place(here + joined, widths[level], attention=attends, joined=joined))
            here = widths[level]
    return down, up


def run(layer: nn.Module, checkpointing: bool, *inputs: Tensor) -> Tensor:
    """Return `layer` of the inputs, its activations computed again on the way back if so asked."""
    out: Tensor
    if checkpointing and torch.is_grad_enabled():
        out = checkpoint(layer, *inputs, use_reentrant=False)
    else:
        out = layer(*inputs)
    return out


class Resampling(nn.Module):
    """Halve or double the sides of images by a separable filter, with zeros outside the image.

    Down: y[i] = Σ_k f[k] x[2 i + k − p] with Σ f = 1 and p = (K − 1) // 2; up is its transpose times 4.
    The filter (1, 1) is the mean of 2×2 pixels, and each pixel repeated.

    Args:
        how: what becomes of the sides.
        taps: the filter, symmetric, of an even number of taps.
    """

    def __init__(self, how: Literal["down", "up"], taps: Sequence[int]) -> None:
        super().__init__()
        self.how, self.box = how, tuple(taps) == (1, 1)
        line = torch.tensor(taps, dtype=torch.get_default_dtype()) / sum(taps)
        self.register_buffer("filter", line[:, None] * line, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.box:
            if self.how == "down":
                return functional.avg_pool2d(x, 2)
            with without_autocast(x):  # which would make float32 of it on CUDA
                return functional.interpolate(x, scale_factor=2, mode="nearest")
        channels, taps = x.shape[1], self.get_buffer("filter")
        kernel = taps.expand(channels, 1, -1, -1)
        padding = (len(taps) - 1) // 2
        if self.how == "down":
            return functional.conv2d(x, kernel, stride=2, padding=padding, groups=channels)
        return functional.conv_transpose2d(
            x, 4 * kernel, stride=2, padding=padding, groups=channels
        )


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494) of at most 32 groups of at least 4 channels.

    Where these do not divide the channels, the largest smaller number of groups that does is taken.

    Args:
        channels: number of channels.
        eps: what is added to the variance.
    """

    def __init__(self, channels: int, eps: float) -> None:
        most = max(1, min(channels // 4, 32))
        super().__init__(next(n for n in range(most, 0, -1) if channels % n == 0), channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        # CUDA's autocast would make float32 of it, and of all that it meets later: twice the bytes. The
        # kernel sums in float32 whatever it is given.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with without_autocast(x):
            return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


class PixelAttention(nn.Module):
    """Self-attention over the pixels, (x + attention(norm(x))) · scale.

    Args:
        channels: number of channels.
        head_channels: channels of each head, None for one head.
        eps: of the normalisation.
        scale: factor of the sum.

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(self, channels: int, head_channels: int | None, eps: float, scale: float) -> None:
        super().__init__()
        self.heads = 1 if head_channels is None else max(1, channels // head_channels)
        if channels % self.heads:
            raise ValueError(
                f"head_channels: {head_channels} is not allowed, allowed: divisors of the {channels} "
                "channels of the blocks with attention"
            )
        self.norm = GroupNorm(channels, eps)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)
        self.scale = scale
        self.kernels: list[SDPBackend] | None = None  # torch's choice

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        # Views of the channels-last layout: a flatten of the pixels would copy all of it.
        qkv = self.project_in(self.norm(x)).permute(0, 2, 3, 1)
        q, k, v = qkv.reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        with nullcontext() if self.kernels is None else sdpa_kernel(self.kernels):
            h = functional.scaled_dot_product_attention(q, k, v)
        h = h.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = (x + self.project_out(h)) * self.scale
        return out

    def allow_second_derivatives(self) -> None:
        """Do without the fast kernels, whose derivative has none; results differ by rounding."""
        self.kernels = [SDPBackend.MATH]


class Style(NamedTuple):
    """What tells one published residual block from another.

    Args:
        eps: of the normalisations.
        taps: filter by which a block halves or doubles the sides.
        modulated: whether the embedding scales and shifts what the second normalisation gives; else it
            is added before it.
        skip_scale: factor of each sum of a skip and what is added to it.
        projected: whether the skip of a block that resamples has a convolution too.
    """

    eps: float
    taps: tuple[int, ...]
    modulated: bool
    skip_scale: float
    projected: bool


class ResidualBlock(nn.Module):
    """Residual block of BigGAN's form, which halves or doubles the sides inside; attention if it has it.

    (skip(x) + conv(dropout(silu(norm(conv(silu(norm(x))), embedding))))) · skip_scale.

    Args:
        place: where it stands.
        embedding: number of features of the embedding.
        style: which kind it is.
        dropout: dropout probability.
        head_channels: see `PixelAttention`.
    """

    def __init__(
        self,
        place: Place,
        embedding: int,
        style: Style,
        dropout: float = 0.0,
        head_channels: int | None = None,
    ) -> None:
        super().__init__()
        inside, outside, how, attention, _ = place
        self.place, self.style = place, style
        self.resample = nn.Identity() if how == "keep" else Resampling(how, style.taps)
        self.norm_in = GroupNorm(inside, style.eps)
        self.conv_in = nn.Conv2d(inside, outside, 3, padding=1)
        self.modulation = nn.Linear(embedding, (1 + style.modulated) * outside)
        self.norm_out = GroupNorm(outside, style.eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(outside, outside, 3, padding=1)
        same = inside == outside and not (style.projected and how != "keep")
        self.skip = nn.Identity() if same else nn.Conv2d(inside, outside, 1)
        self.attention = (
            PixelAttention(outside, head_channels, style.eps, style.skip_scale)
            if attention
            else nn.Identity()
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(self.resample(functional.silu(self.norm_in(x))))
        told = self.modulation(embedding)[:, :, None, None]
        if self.style.modulated:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + told)
        h = self.conv_out(self.dropout(functional.silu(h)))
        out: Tensor = self.attention((self.skip(self.resample(x)) + h) * self.style.skip_scale)
        return out


def told_as(c_noise: Tensor, told: Literal["c_noise", "log_sigma", "vp_time"]) -> Tensor:
    """Return what a network was told where it was published, from c_noise = ln(r) / 4.

    c_noise: EDM's. log_sigma: ln(r / 2), which is ln(σ) of Song's VE on images in [0, 1], half as wide
    as ours. vp_time: 999 t of Song's VP with β from 0.1 to 20, whose r² + 1 = exp(19.9 t² / 2 + 0.1 t).

    Args:
        c_noise: ln(sigma_t / alpha_t) / 4 with shape (B,).
        told: which.

    Returns:
        What is told, with shape (B,).
    """
    if told == "c_noise":
        return c_noise
    if told == "log_sigma":
        return 4 * c_noise - math.log(2)
    first, more = 0.1, 19.9
    exponent = functional.softplus(8 * c_noise)
    # The root of the quadratic in the form that does not cancel at small t.
    return 999 * 2 * exponent / (first + (first**2 + 2 * more * exponent).sqrt())


class Condition(nn.Module):
    """Embed noise level, class and augmentation: sines and cosines, and two linear layers.

    Args:
        width: the network's; the embedding has 4 · width features.
        classes: number of classes, None for an unconditional network.
        told: see `told_as`.
        fourier: whether the frequencies are random, 16 · N(0, 1) turns for each unit of what is told
            (Tancik et al. 2020, arXiv:2006.10739), and saved with the weights; else they are spaced
            from 1 to 1/10,000 radian (Vaswani et al. 2017, arXiv:1706.03762).
        songs: whether the class is added before the linear layers, and sines come first with the
            lowest frequency 1/10,000 itself, as Song has it; else as Dhariwal and Nichol.
        augmented: whether it takes the augmentation's numbers.
    """

    def __init__(
        self,
        width: int,
        classes: int | None,
        told: Literal["c_noise", "log_sigma", "vp_time"],
        fourier: bool,
        songs: bool,
        augmented: bool,
    ) -> None:
        super().__init__()
        self.told: Literal["c_noise", "log_sigma", "vp_time"] = told
        self.songs = songs
        half = width if fourier else max(1, width // 2)
        spaced = torch.arange(half, dtype=torch.get_default_dtype()) / max(1, half - songs)
        radians = 32 * math.pi * torch.randn(half) if fourier else 10_000**-spaced
        self.register_buffer("frequencies", radians, persistent=fourier)
        features = 4 * width
        self.first = nn.Linear(2 * half, features)
        self.second = nn.Linear(features, features)
        self.augmentation = nn.Linear(_AUGMENTATION, 2 * half, bias=False) if augmented else None
        self.table = (
            None if classes is None else nn.Linear(classes, 2 * half if songs else features, songs)
        )

    def forward(
        self, c_noise: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        """Return the embedding with shape (B, 4 · width); no class is a row of zeros."""
        frequencies = self.get_buffer("frequencies")
        angle = told_as(c_noise, self.told).to(frequencies.dtype)[:, None] * frequencies
        waves = [angle.sin(), angle.cos()] if self.songs else [angle.cos(), angle.sin()]
        h = torch.cat(waves, dim=1)
        if self.augmentation is not None and augmentation is not None:
            h = h + self.augmentation(augmentation.to(h.dtype))
        known = None if self.table is None else self._of_class(self.table, c_noise, labels)
        if known is not None and self.songs:
            h = h + known
        h = self.second(functional.silu(self.first(h)))
        if known is not None and not self.songs:
            h = h + known
        return functional.silu(h)

    def _of_class(self, table: nn.Linear, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        classes = table.in_features
        if labels is None:
            labels = torch.full_like(c_noise, -1, dtype=torch.int64)
        hot = labels[:, None] == torch.arange(classes, device=labels.device)
        scale = math.sqrt(classes) if self.songs else 1.0
        found: Tensor = table(scale * hot.to(self.get_buffer("frequencies").dtype))
        return found


class ResidualUNet(nn.Module, ABC):
    """U-Net F(x, c_noise, labels) of residual blocks for images with shape (B, channels, H, W).

    Level l works on the image halved l times, so the halvings must divide both sides.

    Args:
        channels: number of the image's channels.
        width: the number of channels that `multipliers` are relative to.
        multipliers: width of each level relative to `width`; its length is the number of levels.
        blocks: residual blocks per level on the way down; the way up has one more.
        attention_resolutions: longer sides, in pixels, of the levels with self-attention; the middle
            has it anyway.
        dropout: dropout probability inside each block.
        told: what the embedding is told: EDM's c_noise | log_sigma, Song's ln σ for VE | vp_time,
            999 t of Song's VP.
        augmented: whether the network takes the 9 numbers of EDM's augmentation as a condition.
        checkpointing: whether training keeps no activation inside a block and computes it again on
            the way back: a third more work for a fraction of the memory, and the same gradients
            (Chen et al. 2016, arXiv:1604.06174).
        resolution: longer side of the images that it is made for, in pixels.
        classes: number of classes of a conditional network, None for an unconditional one.
    """

    style: ClassVar[Style]
    fourier: ClassVar[bool] = False
    songs: ClassVar[bool] = False
    progressive: ClassVar[bool] = False
    head_channels: int | None = None

    def __init__(
        self,
        channels: int,
        width: Size = 128,
        multipliers: Annotated[Sequence[Annotated[int, Bounds(ge=1, le=256)]], Length(1, 16)] = (
            1,
            2,
            2,
            2,
        ),
        blocks: Annotated[int, Bounds(ge=1, le=64)] = 4,
        attention_resolutions: Annotated[Sequence[Size], Length(0, 16, distinct=True)] = (16,),
        dropout: Share = 0.0,
        told: Literal["c_noise", "log_sigma", "vp_time"] = "c_noise",
        augmented: bool = False,
        checkpointing: bool = False,
        resolution: Size = 32,
        classes: Size | None = None,
    ) -> None:
        super().__init__()
        self.checkpointing, self.augmented = checkpointing, augmented
        self.embedding = Condition(width, classes, told, self.fourier, self.songs, augmented)
        enter = width if self.songs else width * multipliers[0]
        attention = [
            resolution >> level in attention_resolutions for level in range(len(multipliers))
        ]
        down, up = places(
            enter, [width * one for one in multipliers], blocks, attention, self.songs
        )

        def made(place: Place) -> ResidualBlock:
            return ResidualBlock(place, 4 * width, self.style, dropout, self.head_channels)

        self.enter = nn.Conv2d(channels, enter, 3, padding=1)
        self.down = nn.ModuleList(map(made, down))
        self.up = nn.ModuleList(map(made, up))
        self.inputs = nn.ModuleList()
        before = channels
        for place in down if self.progressive else ():
            if place.resampling == "down":
                # The filter first, then every second pixel of the convolution: the same sum, cheaper.
                self.inputs.append(_FilteredConvolution(before, place.outside, self.style.taps))
                before = place.outside
        here = up[-1].outside
        last = nn.Conv2d(here, channels, 3, padding=1)
        self.leave = nn.Sequential(GroupNorm(here, self.style.eps), nn.SiLU(), last)
        closing = [last]
        for layer in self.modules():
            if isinstance(layer, ResidualBlock):
                closing.append(layer.conv_out)
            if isinstance(layer, PixelAttention):
                closing.append(layer.project_out)
        self.initialise(closing)

    @abstractmethod
    def initialise(self, closing: Sequence[nn.Conv2d]) -> None:
        """Draw the weights.

        Args:
            closing: the last convolution of each block, of each attention and of the network.
        """

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """Return F, see `scoremodel.networks`; the augmentation's numbers are (B, 9), None is zero."""
        embedding = self.embedding(c_noise, labels, augmentation)
        h = self.enter(x)
        skips, progress, inputs = [h], x, iter(self.inputs)
        for block in self.down:
            h = run(block, self.checkpointing, h, embedding)
            if self.progressive and block.place.resampling == "down":  # type: ignore[union-attr]
                h = progress = (h + next(inputs)(progress)) * self.style.skip_scale
            skips.append(h)
        for block in self.up:
            if block.place.joined:  # type: ignore[union-attr]
                h = torch.cat([h, skips.pop()], dim=1)
            h = run(block, self.checkpointing, h, embedding)
        return in_float32(self.leave, h)


class _FilteredConvolution(nn.Conv2d):
    """Convolution of an image whose sides it halves, filtered first, with zeros outside the image.

    Args:
        inside: channels that come in.
        outside: channels that go out.
        taps: the filter, symmetric.
    """

    def __init__(self, inside: int, outside: int, taps: Sequence[int]) -> None:
        super().__init__(inside, outside, 3, stride=2)
        line = torch.tensor(taps, dtype=torch.get_default_dtype()) / sum(taps)
        self.register_buffer("filter", line[:, None] * line, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, taps = x.shape[1], self.get_buffer("filter")
        kernel = taps.expand(channels, 1, -1, -1)
        filtered = functional.conv2d(x, kernel, padding=len(taps) // 2, groups=channels)
        return super().forward(filtered)
