"""DDPM++ and NCSN++: the U-Nets of Song et al. 2021 (arXiv:2011.13456), which EDM trained too.

Blocks add the embedding, sums are scaled by √½, attention has one head, and on the way up the last
block of a level alone has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from scoremodel.networks.base import NETWORKS
from scoremodel.networks.residual import PixelAttention, ResidualUNet, Style

__all__ = ["DDPMPP", "NCSNPP"]


@NETWORKS.register("ddpmpp", dimensions=3, sized=True)
class DDPMPP(ResidualUNet):
    """DDPM++ of Song et al. 2021 (arXiv:2011.13456).

    61.80 M parameters on CIFAR-10, 106.63 M with `blocks=8` ("deep"). As Karras et al. 2022
    (arXiv:2206.00364) trained it there, with multipliers (2, 2, 2) and `augmented`, 55.73 M.
    """

    style = Style(eps=1e-6, taps=(1, 1), modulated=False, skip_scale=0.5**0.5, projected=True)
    songs = True

    def initialise(self, closing: Sequence[nn.Conv2d]) -> None:
        """Draw weights by Xavier's rule; a block's last layer so small that the block is its skip."""
        gains: dict[nn.Module, float] = dict.fromkeys(closing, 1e-5)
        for layer in self.modules():
            if isinstance(layer, PixelAttention):
                gains[layer.project_in] = 0.2**0.5
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gains.get(layer, 1.0))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


@NETWORKS.register("ncsnpp", dimensions=3, sized=True)
class NCSNPP(DDPMPP):
    """NCSN++ of Song et al. 2021 (arXiv:2011.13456).

    DDPM++ with random frequencies in the embedding, resampling by the filter [1, 3, 3, 1], and the
    image itself, filtered, halved and convolved, added to what enters each level. 62.76 M parameters on
    CIFAR-10, 107.59 M with `blocks=8` ("deep").
    """

    style = DDPMPP.style._replace(taps=(1, 3, 3, 1))
    fourier = True
    progressive = True
