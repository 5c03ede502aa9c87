"""Augmented images, of which the network is told how: it learns the images themselves, and not these.

Each image is mirrored, scaled, turned, stretched and moved at random; the network has the numbers of
that as a condition, all zero of the image as it is, which is what is sampled. Karras, Aittala, Hellsten,
Laine, Lehtinen, Aila: Training Generative Adversarial Networks with Limited Data, 2020,
arXiv:2006.06676, as Karras, Aittala, Aila, Laine, 2022, arXiv:2206.00364, table 6, take it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, grid_sample, pad

__all__ = ["NUMBERS", "augmented", "condition", "draw"]

NUMBERS = 9
"""How many numbers a network is told of an augmentation."""

_STD = 0.2  # of the binary logarithm of a scale
_MOVED = 1 / 8  # of a side
# The low-pass filter of the wavelet sym6 (Daubechies 1992): Σ h_k = √2, Σ h_k h_(k+2m) = δ_m. So twice
# as many pixels made by it and its adjoint after that are the image again.
_FILTER = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_CENTRE = sum(k * h for k, h in enumerate(_FILTER)) / sum(_FILTER)


def draw(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Return the parameters a_0 … a_7 of as many augmentations, those that are not made zero.

    With A = 2^0.2, each but the first is made with the probability p, by itself:

        a_0, a_1    {0, 1}           mirrored in x (always with ½), in y
        a_2         N(0, 1)          scaled by A^a_2
        a_3         U(−π, π)         turned by a_3
        a_4, a_5    U(−π, π), N      stretched by A^a_5 along a_4, by A^−a_5 across
        a_6, a_7    N(0, 1)          moved by a_6 / 8 of the width, a_7 / 8 of the height

    Args:
        count: how many, B.
        probability: p.
        generator: where from; the tensor is on its device.

    Returns:
        float32 with shape (B, 8).
    """
    device = generator.device
    uniform = torch.rand(count, 4, generator=generator, device=device)
    normal = torch.randn(count, 4, generator=generator, device=device)
    made = torch.rand(count, 5, generator=generator, device=device) < probability
    mirrored = (uniform[:, :2] < 0.5).float()
    angle = (2 * uniform[:, 2:] - 1) * math.pi
    columns = [mirrored[:, 0], *mirrored[:, 1:].T, normal[:, 0], *angle.T, *normal[:, 1:].T]
    made = torch.stack([torch.ones_like(made[:, 0]), *made[:, [0, 1, 2, 3, 3, 4, 4]].T], dim=1)
    return torch.stack(columns, dim=1) * made


def condition(parameters: Tensor) -> Tensor:
    """Return what a network is told: a_0, a_1, a_2, cos a_3 − 1, sin a_3, a_5 (cos, sin) a_4, a_6, a_7.

    Args:
        parameters: as `draw` returns them, with shape (B, 8).

    Returns:
        Numbers with shape (B, 9).
    """
    x, y, scale, turn, along, stretch, right, down = parameters.unbind(1)
    stretched = stretch * along.cos(), stretch * along.sin()
    told = [x, y, scale, turn.cos() - 1, turn.sin(), *stretched, right, down]
    return torch.stack(told, dim=1)


def augmented(x: Tensor, parameters: Tensor) -> Tensor:
    """Return augmented images, those of which all parameters are zero as they are.

    The transformations are made in the order of `draw`, around the image's centre. Mirroring is exact;
    the others are one map x → G x, whose image at q is the original's at G⁻¹ q. There the original,
    reflected at its edges, has twice as many pixels by a low-pass filter, between which is interpolated
    linearly; moves by whole pixels are exact but for rounding.

    Args:
        x: images with shape (B, C, H, W).
        parameters: as `draw` returns them, with shape (B, 8).

    Returns:
        Images with shape (B, C, H, W).
    """
    for column, axis in ((0, 3), (1, 2)):
        mirrored = parameters[:, column, None, None, None] > 0
        x = torch.where(mirrored, x.flip(axis), x)
    moved = (parameters[:, 2:] != 0).any(1)[:, None, None, None]
    return torch.where(moved, _warped(x, *_inverse(parameters, x.shape[2:])), x)


def _inverse(parameters: Tensor, sides: torch.Size) -> tuple[Tensor, Tensor]:
    """Return G⁻¹ as a matrix (B, 2, 2) that acts on q less a shift (B, 2), in pixels, x before y."""
    _, _, scale, turn, along, stretch, *shift = parameters.unbind(1)
    stretched = _turned(-along) @ torch.diag_embed(_power(-stretch)) @ _turned(along)
    scaled = torch.exp2(-_STD * scale)[:, None, None] * _turned(turn)
    height, width = sides
    return scaled @ stretched, torch.stack(shift, dim=1) * _MOVED * parameters.new_tensor(
        [width, height]
    )


def _turned(angle: Tensor) -> Tensor:
    """Return the matrix (B, 2, 2) by which a vector's angle becomes less by `angle`."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)


def _power(exponent: Tensor) -> Tensor:
    return torch.exp2(_STD * torch.stack([exponent, -exponent], dim=1))


def _warped(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Return the images at G⁻¹ q for every pixel q."""
    count, channels, height, width = x.shape
    taps = torch.tensor(_FILTER, dtype=x.dtype, device=x.device)
    square = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    margins = width // 2, height // 2
    wide = pad(x, [one for one in margins for _ in range(2)], mode="reflect")
    # √2 h of each axis, and h / √2 on the way back.
    fine = conv_transpose2d(wide, 2 * square, stride=2, groups=channels)

    def ticks(side: int) -> Tensor:
        """Return where the finer pixels of a side are, in pixels from its centre."""
        index = torch.arange(2 * side + len(_FILTER) - 2, dtype=x.dtype, device=x.device)
        return (index - _CENTRE) / 2 - (side - 1) / 2

    rows, columns = torch.meshgrid(ticks(height), ticks(width), indexing="ij")
    target = torch.stack([columns, rows], dim=-1).view(1, -1, 2) - shift[:, None].to(x.dtype)
    source = target @ matrix.to(x.dtype).mT
    # As grid_sample wants it: −1 and 1 are the centres of the first finer pixel and the last.
    ends = source.new_tensor([[fine.shape[3] - 1], [fine.shape[2] - 1]]).flatten()
    sides = source.new_tensor([width, height])
    offset = source.new_tensor(margins)
    index = 2 * (source + (sides - 1) / 2 + offset) + _CENTRE
    grid = (2 * index / ends - 1).view(count, *rows.shape, 2)
    between = grid_sample(fine, grid, padding_mode="reflection", align_corners=True)
    return conv2d(between, square / 2, stride=2, groups=channels)
