"""What a score model may predict: denoised mean, noise, score or v, one linear map apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from scoremodel.bounds import shown
from scoremodel.processes.base import Process, column

__all__ = [
    "Denoise",
    "Parametrisation",
    "Preconditioning",
    "as_denoise",
    "convert",
    "preconditioning",
]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Anything that maps (x_t with shape (B, *), t with shape (B,)) to E[x_0 | x_t] with shape (B, *)."""

Parametrisation = Literal["denoised", "noise", "score", "v"]
Preconditioning = Literal["edm", "noise", "v", "denoised", "ve", "vp"]


def as_denoise(model: Denoise) -> Denoise:
    """Return a function (x_t, t) → E[x_0 | x_t] of whoever's, refusing what is none.

    Args:
        model: the function. It is called with gradients off; one that takes a gradient itself, such as
            an energy's, does it by `torch.func.grad`, or in `torch.enable_grad()`.

    Returns:
        The function, which refuses results that would be broadcast to the shape of x_t.

    Raises:
        ValueError: if it is no function.
    """
    if not callable(model) or isinstance(model, type):
        raise ValueError(
            f"model: {shown(model)} is not allowed, allowed: a Denoiser, or a function (x_t, t) → "
            "E[x_0 | x_t]"
        )

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        try:
            value = model(x_t, t)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise ValueError(
                "model: it takes a gradient where gradients are off, allowed: torch.func.grad, or "
                "torch.enable_grad() inside of it"
            ) from error
        if not isinstance(value, Tensor) or value.shape != x_t.shape:
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"model: for x_t of shape {tuple(x_t.shape)} it returned {what}, allowed: a tensor of "
                "that shape"
            )
        return value

    return denoise


def convert(
    value: Tensor,
    x_t: Tensor,
    t: Tensor,
    process: Process,
    source: Parametrisation,
    target: Parametrisation,
) -> Tensor:
    """Return what one parametrisation of a score model says in the terms of another.

    Each is a x_t + b D for the denoised mean D = E[x_0 | x_t]:

        denoised    D
        noise       ε = (x_t − alpha_t D) / sigma_t
        score       s = (alpha_t D − x_t) / sigma_t²
        v           alpha_t ε − sigma_t D        (Salimans and Ho 2022, arXiv:2202.00512)

    Args:
        value: what the model says with shape (B, *).
        x_t: noisy data with shape (B, *).
        t: times with shape (B,).
        process: the process that made x_t.
        source: the parametrisation of `value`.
        target: the parametrisation to return; all but "denoised" need sigma_t > 0.

    Returns:
        The same statement in the target's terms with shape (B, *).

    Raises:
        ValueError: if a parametrisation is unknown, the shapes do not fit, or a time is outside
            [0, 1].
    """
    alpha, sigma = column(process.alpha(t), x_t), column(process.sigma(t), x_t)
    linear = {
        "denoised": (torch.zeros_like(sigma), torch.ones_like(sigma)),
        "noise": (1 / sigma, -alpha / sigma),
        "score": (-1 / sigma**2, alpha / sigma**2),
        "v": (alpha / sigma, -(alpha**2) / sigma - sigma),
    }
    for name in (source, target):
        if name not in linear:
            raise ValueError(f"unknown parametrisation {name!r}, allowed: {', '.join(linear)}")
    if target == "denoised":  # in forms that hold at sigma_t = 0 too
        return {
            "denoised": value,
            "noise": (x_t - sigma * value) / alpha,
            "score": (x_t + sigma**2 * value) / alpha,
            "v": (alpha * x_t - sigma * value) / (alpha**2 + sigma**2),
        }[source]
    (a_source, b_source), (a_target, b_target) = linear[source], linear[target]
    scale = b_target / b_source
    return (a_target - a_source * scale) * x_t + scale * value


def preconditioning(ratio: Any, std: float, kind: Preconditioning = "edm") -> tuple[Any, Any, Any]:
    """Return c_skip, c_out and c_in of D = m + c_skip y + c_out F(c_in y), y = x_t / alpha_t − m.

    With r = sigma_t / alpha_t, the data's standard deviation s, and c_in = 1 / sqrt(s² + r²) where
    nothing else is said:

        edm         c_skip = s² / (s² + r²),   c_out = s r / sqrt(s² + r²)
        noise       c_skip = 1,                c_out = −r           F is the noise ε
        v           c_skip = 1 / (1 + r²),     c_out = −r / sqrt(1 + r²)
        denoised    c_skip = 0,                c_out = 1
        ve          c_skip = 1,                c_out = r,           c_in = 1
        vp          c_skip = 1,                c_out = −r,          c_in = 1 / sqrt(1 + r²)

    "noise" is how NCSN and DDPM, hence VE and VP, were trained at first, but for the scale of what the
    network is given; "ve" and "vp" give it that too: F of "ve" is −ε of x_t as it is, F of "vp" is ε
    of VP's x_t, whatever s. "v" is VP's v, and "edm" is −v for data scaled to s = 1.

    Karras et al. 2022, arXiv:2206.00364, table 1.

    Args:
        ratio: noise levels r, a number or a tensor of any shape.
        std: s.
        kind: one of the names above.

    Returns:
        Three numbers, or three tensors with the shape of `ratio`.

    Raises:
        ValueError: if the kind is unknown.
    """
    total = std**2 + ratio**2
    c_in = total**-0.5
    if kind == "edm":
        return std**2 / total, std * ratio * c_in, c_in
    if kind == "noise":
        return 0 * ratio + 1, -ratio, c_in
    if kind == "v":
        return 1 / (1 + ratio**2), -ratio * (1 + ratio**2) ** -0.5, c_in
    if kind == "denoised":
        return 0 * ratio, 0 * ratio + 1, c_in
    if kind == "ve":
        return 0 * ratio + 1, ratio, 0 * ratio + 1
    if kind == "vp":
        return 0 * ratio + 1, -ratio, (1 + ratio**2) ** -0.5
    raise ValueError(
        f"unknown preconditioning {kind!r}, allowed: {', '.join(get_args(Preconditioning))}"
    )
