"""Latents: data carried through the probability-flow ODE to the prior, and back.

The ODE is a one-to-one map between data and noise (Song et al. 2021, arXiv:2011.13456, section 4.3),
so that every image has a code, and a path between two codes is a path between two images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.flow import flow
from scoremodel.processes.base import Process
from scoremodel.processes.sde import as_sde

__all__ = ["decode", "encode", "interpolate"]


def encode(
    model: Denoiser,
    x: Tensor,
    *,
    labels: Tensor | None = None,
    process: Process | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Return the latents x_1 of data x, taken as x_{t_min}.

    Args:
        model: the model.
        x: data with shape (N, *).
        labels: class numbers with shape (N,), of a class-conditional model.
        process: an SDE; the model's own if None.
        rtol: relative tolerance of the ODE.
        atol: absolute tolerance of the ODE.

    Returns:
        Latents with shape (N, *), distributed as the prior if the data are as the model's.

    Raises:
        ValueError: if the process is a chain.
        FloatingPointError: if the model's output is not finite.
    """
    sde = as_sde(process or model.process, "encoding")
    with torch.no_grad():
        return flow(model.along(sde, labels), sde, x, sde.t_min, 1.0, rtol=rtol, atol=atol).x


def decode(
    model: Denoiser,
    z: Tensor,
    *,
    labels: Tensor | None = None,
    process: Process | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Return the data x_{t_min} of latents z (N, *), the inverse of `encode`; arguments as there."""
    sde = as_sde(process or model.process, "decoding")
    with torch.no_grad():
        return flow(model.along(sde, labels), sde, z, 1.0, sde.t_min, rtol=rtol, atol=atol).x


def interpolate(first: Tensor, last: Tensor, count: int) -> Tensor:
    """Return latents on the arc from one to another, which keeps a Gaussian's length.

        z(u) = (sin((1 − u) θ) z_a + sin(u θ) z_b) / sin θ,        cos θ = ⟨z_a, z_b⟩ / |z_a| |z_b|

    Shoemake 1985; a straight line would pass through points far shorter than any latent.

    Args:
        first: z_a with shape (N, *), less the prior's mean.
        last: z_b with shape (N, *), less the prior's mean.
        count: number of points, both ends among them, at least 2.

    Returns:
        Latents with shape (count, N, *).

    Raises:
        ValueError: if count < 2, or two latents point the same or opposite ways.
    """
    if count < 2:
        raise ValueError(f"a path needs at least its 2 ends, got {count}")
    a, b = first.flatten(1), last.flatten(1)
    angle = torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1).acos()[:, None]
    if bool((angle.sin().abs() < 1e-6).any()):
        raise ValueError("between latents that point the same or opposite ways there is no one arc")
    steps = torch.linspace(0, 1, count, dtype=a.dtype, device=a.device)
    points = [((1 - u) * angle).sin() * a + (u * angle).sin() * b for u in steps]
    return (torch.stack(points) / angle.sin()).view(count, *first.shape)
