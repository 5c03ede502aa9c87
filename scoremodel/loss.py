"""Denoising score matching over many noise levels.

The score network is trained to point from noisy data back to where they came from (Vincent 2011),
at all noise levels at once (Song and Ermon 2019, arXiv:1907.05600; Song et al. 2021,
arXiv:2011.13456):

    L = E_t E_{x_0, ε} λ(t) |s(x_t, t) + ε / sigma_t|²,        x_t = alpha_t x_0 + sigma_t ε.

With s = (alpha_t D − x_t) / sigma_t² the bracket is alpha_t (D − x_0) / sigma_t², so every weighting
λ is a weight w(t) = λ(t) alpha_t² / sigma_t⁴ on |D − x_0|².
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from scoremodel.denoiser import Denoise
from scoremodel.sde import SDE, Process

__all__ = ["Weighting", "denoising_loss", "denoising_weight"]

Weighting = Literal["sigma2", "likelihood", "edm"]


def denoising_weight(t: Tensor, process: Process, weighting: Weighting, std: float) -> Tensor:
    """Return the weight w(t) on |D − x_0|².

    With r = sigma_t / alpha_t:

        sigma2      λ = sigma_t²   →  w = 1 / r²                   (Song et al. 2021)
        likelihood  λ = g(t)²      →  w = g² / (r² sigma_t²)       (arXiv:2101.09258)
        edm                           w = (std² + r²) / (std r)²   (arXiv:2206.00364)

    Args:
        t: times with any shape.
        process: the forward process.
        weighting: one of the names above.
        std: the data's standard deviation, used by "edm".

    Returns:
        Weights with the shape of t.

    Raises:
        ValueError: if the weighting is unknown, or needs g(t) of a process that has none.
    """
    squared = process.ratio(t) ** 2
    if weighting == "sigma2":
        return 1 / squared
    if weighting == "likelihood":
        if not isinstance(process, SDE):
            raise ValueError(f"weighting 'likelihood' needs g(t), which {process.kind} has not")
        return (process.g(t) / process.sigma(t)) ** 2 / squared
    if weighting == "edm":
        return 1 / squared + 1 / std**2  # EDM's, in a form that stays finite
    raise ValueError(f"unknown weighting {weighting!r}, allowed: {', '.join(get_args(Weighting))}")


def denoising_loss(
    denoise: Denoise, x_0: Tensor, t: Tensor, noise: Tensor, process: Process, weight: Tensor
) -> Tensor:
    """Return w |D(x_t, t) − x_0|², averaged over the dimensions, for each data point.

    Args:
        denoise: the model D(x_t, t).
        x_0: data with shape (B, *).
        t: times with shape (B,).
        noise: standard normal noise with shape (B, *).
        process: the forward process.
        weight: weights w with shape (B,), see `denoising_weight`.

    Returns:
        Losses with shape (B,).

    Raises:
        ValueError: if the shapes do not fit, or a time is outside [0, 1].
    """
    error = denoise(process.perturb(x_0, t, noise), t) - x_0
    return weight * error.square().flatten(1).mean(1)
