"""Inverse problems: what a trained model says of data of which only y = A x_0 + n is known.

With V = Cov[x_0 | x_t] and noise n ~ N(0, std² I) the denoised mean given y is

    E[x_0 | x_t, y] ≈ D + (r² ∂D/∂y)ᵀ Aᵀ (std² I + A V Aᵀ)⁻¹ (y − A D),

where r² ∂D/∂y is V itself (Tweedie's second formula). For Gaussian data it is exact. The two methods
differ in the V inside the brackets:

    pigdm   r² s² / (s² + r²) I, with the data's standard deviation s: exact if Cov[x_0] = s² I
            (Song, Vahdat, Mardani and Kautz, Pseudoinverse-Guided Diffusion Models, 2023)
    mmps    r² ∂D/∂y itself: exact for every Gaussian
            (Rozet, Andry, Lanusse and Louppe 2024, arXiv:2405.13712)

The result is a denoiser like any other, so every sampler samples from the posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from scoremodel.bounds import Count, NonNegative, Positive, check_arguments
from scoremodel.denoiser import Denoiser
from scoremodel.parametrisation import Denoise, as_denoise
from scoremodel.processes.base import Process, column
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.sampling import equal_parts, sample

__all__ = ["Method", "Operator", "blur", "downsample", "mask", "posterior", "restore"]

Method = Literal["pigdm", "mmps"]

Operator = Callable[[Tensor], Tensor]
"""Any linear function A of data with shape (B, *), each row of the result of its own row alone."""


def _placed(constant: Tensor) -> Operator:
    """Return x → `constant` in the place and type of x, where it stays.

    A copy at every call would have the host wait for a GPU.
    """
    copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def placed(x: Tensor) -> Tensor:
        where = x.device, x.dtype
        if where not in copies:
            with torch.inference_mode(False):  # whose tensors no derivative can pass through
                copies[where] = constant.to(x)
        return copies[where]

    return placed


def mask(known: Tensor) -> Operator:
    """Return x → known · x, which sets to zero what is not known; `known` are booleans for one data point."""
    placed = _placed(known)
    return lambda x: x * placed(x)


def downsample(factor: int) -> Operator:
    """Return the operator that averages squares of factor × factor pixels of images (B, C, H, W)."""
    return lambda x: functional.avg_pool2d(x, factor)


def blur(std: float) -> Operator:
    """Return convolution of images (B, C, H, W) with a Gaussian of this many pixels, zeros beyond the edges.

    It is cut at three standard deviations.
    """
    reach = max(1, round(3 * std))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / std) ** 2)
    kernel = _placed(torch.outer(line, line) / line.sum() ** 2)

    def blurred(x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = kernel(x).expand(channels, 1, -1, -1)
        return functional.conv2d(x, weight, padding=reach, groups=channels)

    return blurred


def posterior(
    model: Denoiser | Denoise,
    operator: Operator,
    y: Tensor,
    noise_std: NonNegative,
    *,
    method: Method = "mmps",
    iterations: Count = 5,
    process: Annotated[Process, "VP()"] | None = None,
    std: Positive | None = None,
    labels: Tensor | Sequence[int] | int | None = None,
) -> Denoise:
    """Return the denoiser of x_0 given y = A x_0 + n.

    Args:
        model: a `Denoiser`, or any function D(x_t, t), which is differentiated: one that takes a gradient
            itself does it by `torch.func.grad`, or with `create_graph=True`.
        operator: A.
        y: what is known with shape (B, *) for as many data points, or (1, *) for all.
        noise_std: standard deviation of n; 0 for y = A x_0, whose samples have A x = y as far as the
            iterations go. y must be a value of A then.
        method: one of the two above.
        iterations: steps of conjugate gradients for the inverse; a mask or an average under "pigdm"
            needs one, in general as many as A V Aᵀ has eigenvalues that matter. Without noise these
            are more: no std² lifts the small ones.
        process: a `Denoiser`'s own if None.
        std: the data's standard deviation, for "pigdm"; a `Denoiser`'s own if None.
        labels: class numbers with shape (B,), or one for all, of a class-conditional model.

    Returns:
        A function (x_t, t) → E[x_0 | x_t, y], which costs one call of the model, and a backward pass
        (for "mmps" one more for each iteration).

    Raises:
        ValueError: if the method is unknown, or a number is out of range or missing.
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}, allowed: {', '.join(get_args(Method))}")
    given = {"noise_std": noise_std, "iterations": iterations, "process": process, "std": std}
    check_arguments("posterior", posterior, given)
    if isinstance(model, Denoiser):
        process, std = process or model.process, std or model.std
        denoise = model.along(process, labels)
    else:
        denoise = as_denoise(model)
    if process is None or (method == "pigdm" and std is None):
        raise ValueError("a function D(x_t, t) needs a process, and for 'pigdm' the data's std")
    known = _placed(y)

    def conditioned(x_t: Tensor, t: Tensor) -> Tensor:
        # Samplers run in inference mode, whose tensors no derivative can pass through.
        with torch.inference_mode(False), torch.enable_grad():
            x_t, t = x_t.clone(), t.clone()
            alpha, ratio = column(process.alpha(t), x_t), column(process.ratio(t), x_t)
            y = (x_t / alpha).detach().requires_grad_(True)
            denoised = denoise(alpha * y, t)

            def spread(u: Tensor) -> Tensor:
                (pulled,) = torch.autograd.grad(denoised, y, u, retain_graph=True)
                return ratio**2 * pulled

            with torch.no_grad():
                mean, transpose = denoised.detach(), _transpose(operator, x_t)
                isotropic = 0.0 if std is None else (ratio * std) ** 2 / (ratio**2 + std**2)

                def total(w: Tensor) -> Tensor:
                    u = transpose(w)
                    return noise_std**2 * w + operator(
                        spread(u) if method == "mmps" else isotropic * u
                    )

                rest = known(mean) - operator(mean)
                w = _conjugate_gradients(total, rest, iterations, noise_std**2)
                return mean + spread(transpose(w))

    return conditioned


def restore(
    model: Denoiser,
    operator: Operator,
    y: Tensor,
    noise_std: NonNegative,
    sampler: Sampler,
    seed: int,
    *,
    method: Method = "mmps",
    iterations: Count = 5,
    labels: Tensor | Sequence[int] | int | None = None,
    start: int = 0,
    batch_size: int = 128,
) -> Tensor:
    """Return one draw from the posterior for each of many measurements.

    Args:
        model: the model, which has never seen the operator.
        operator: A.
        y: measurements with shape (N, *).
        noise_std: standard deviation of their noise, 0 for none, see `posterior`.
        sampler: any sampler of denoisers.
        seed: draw i is a function of (seed, start + i) alone.
        method: see `posterior`.
        iterations: see `posterior`.
        labels: class numbers with shape (N,), or one for all, of a class-conditional model.
        start: number of the first draw.
        batch_size: the most measurements at a time.

    Returns:
        Data with shape (N, *model.shape).

    Raises:
        ValueError: as `posterior` and `sample`.
    """
    drawn = []
    each = None if labels is None else torch.as_tensor(labels).expand(len(y))
    for rows in equal_parts(len(y), batch_size):
        part = y[rows.start : rows.stop]
        given = None if each is None else each[rows.start : rows.stop]
        denoise = posterior(
            model, operator, part, noise_std, method=method, iterations=iterations, labels=given
        )
        x = sample(
            denoise,
            sampler,
            len(part),
            seed,
            start=start + rows.start,
            batch_size=len(part),
            process=model.process,
            shape=model.shape,
            mean=model.data_mean,
            dtype=model.data_mean.dtype,
            device=part.device,
        ).x
        drawn.append(x)
    return torch.cat(drawn)


def _transpose(operator: Operator, x: Tensor) -> Operator:
    """Return Aᵀ of the linear function A of data like x."""
    pull = torch.func.vjp(operator, torch.zeros_like(x))[1]
    return lambda w: pull(w)[0]


def _conjugate_gradients(
    apply: Callable[[Tensor], Tensor], target: Tensor, iterations: int, least: float
) -> Tensor:
    """Return w with apply(w) = target, each row for itself, after so many steps (Hestenes, Stiefel 1952).

    A row ends early where it is solved, and where ⟨u, apply(u)⟩ < least |u|²: no covariance does
    that, but a network's Jacobian may, and the steps beyond would be large and mean nothing. Where
    `least` is 0 that is an eigenvalue which the largest seen rounds away.
    """
    cut = 10 * torch.finfo(target.dtype).eps if least == 0 else 0.0
    largest = torch.zeros_like(target.flatten(1)[:, 0])
    shape = target.shape
    w = torch.zeros_like(target)
    rest = target.clone()
    way = rest.clone()
    norm = rest.flatten(1).square().sum(1)
    first = norm.clone()
    for _ in range(iterations):
        image = apply(way)
        curved = (way * image).flatten(1).sum(1)
        length = way.flatten(1).square().sum(1)
        floor = least * (1 - 1e-6) * length
        if cut:
            largest = torch.maximum(largest, (curved / length).nan_to_num(0.0))
            floor = cut * largest * length
        moves = (curved > floor) & (norm > 1e-12 * first)
        step = torch.where(moves, norm / curved.where(moves, torch.ones_like(curved)), 0.0)
        w = w + column(step, w) * way
        rest = rest - column(step, w) * image
        after = rest.flatten(1).square().sum(1)
        keep = torch.where(moves, after / norm.where(moves, torch.ones_like(norm)), 0.0)
        way = rest + column(keep, w) * way
        norm = torch.where(moves, after, torch.zeros_like(after))
    return w.view(shape)
