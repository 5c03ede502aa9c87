"""ADM, the U-Net of Dhariwal and Nichol 2021 (arXiv:2105.05233), as EDM has it (arXiv:2206.00364)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import nn

from scoremodel.bounds import Bounds, Length, Share, Size
from scoremodel.networks.base import NETWORKS
from scoremodel.networks.embedding import zero_initialised
from scoremodel.networks.residual import ResidualUNet, Style

__all__ = ["ADM"]


@NETWORKS.register("adm", dimensions=3, sized=True)
class ADM(ResidualUNet):
    """ADM of Dhariwal and Nichol 2021 (arXiv:2105.05233).

    The embedding scales and shifts each block's second normalisation, and every block of a level with
    attention has it, of several heads. 295.90 M parameters for ImageNet-64 with its 1,000 classes.

    Args:
        channels: number of the image's channels.
        width: the number of channels that `multipliers` are relative to.
        multipliers: width of each level relative to `width`; its length is the number of levels.
        blocks: residual blocks per level on the way down; the way up has one more.
        attention_resolutions: longer sides, in pixels, of the levels with self-attention; the middle
            has it anyway.
        head_channels: channels of each head of the attention.
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

    style = Style(eps=1e-5, taps=(1, 1), modulated=True, skip_scale=1.0, projected=False)

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
        attention_resolutions: Annotated[Sequence[Size], Length(0, 16, distinct=True)] = (
            32,
            16,
            8,
        ),
        head_channels: Size = 64,
        dropout: Share = 0.0,
        told: Literal["c_noise", "log_sigma", "vp_time"] = "c_noise",
        augmented: bool = False,
        checkpointing: bool = False,
        resolution: Size = 64,
        classes: Size | None = None,
    ) -> None:
        self.head_channels = head_channels
        super().__init__(
            channels,
            width,
            multipliers,
            blocks,
            attention_resolutions,
            dropout,
            told,
            augmented,
            checkpointing,
            resolution,
            classes,
        )

    def initialise(self, closing: Sequence[nn.Conv2d]) -> None:
        """Leave weights as torch draws them; blocks start as their skips, and the network as zero."""
        for layer in closing:
            zero_initialised(layer)
        if self.embedding.augmentation is not None:
            zero_initialised(self.embedding.augmentation)
        if self.embedding.table is not None:
            nn.init.normal_(self.embedding.table.weight)
