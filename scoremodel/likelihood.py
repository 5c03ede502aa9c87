"""Log-likelihood and bits/dim by the probability-flow ODE.

The ODE carries data x at t_min to a latent at t = 1 whose density is the prior's; what the density
gains on the way is the change of volume:

    ln p(x) = ln p_1(y_1) + ∫ (d − tr ∂D/∂y) d(ln r) − d ln alpha_{t_min},        y = x_t / alpha_t.

Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.2. x is taken as x_{t_min}: its
density is that of data with the noise sigma of t_min.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Count, Tolerance, check_arguments
from scoremodel.data.scale import bin_width, to_unit
from scoremodel.denoiser import Denoiser
from scoremodel.flow import Trace, exact_trace, flow, hutchinson
from scoremodel.parametrisation import Denoise, as_denoise
from scoremodel.processes.base import Process
from scoremodel.processes.sde import as_sde
from scoremodel.rng import random_uniform

__all__ = ["Likelihood", "bits_per_dim", "dequantise", "log_likelihood"]

_PROBES = 4
"""Of images, where nobody says how many."""


@dataclass(frozen=True)
class Likelihood:
    """What `log_likelihood` returns.

    Args:
        log_prob: ln p(x) in nats with shape (N,).
        std_error: standard error of each from its probes with shape (N,); zero for the exact trace,
            infinite for a single probe, which does not know how far it is off.
        nfe: number of calls of the model for the slowest batch.
    """

    log_prob: Tensor
    std_error: Tensor
    nfe: int


def log_likelihood(
    model: Denoiser | Denoise,
    x: Tensor,
    *,
    probes: Annotated[int, Bounds(ge=1, le=65_536)] | None = None,
    seed: int = 0,
    start: int = 0,
    labels: Tensor | Sequence[int] | int | None = None,
    process: Annotated[Process, "VP()"] | None = None,
    mean: Tensor | float | None = None,
    rtol: Tolerance = 1e-5,
    atol: Tolerance = 1e-5,
    batch_size: Count = 128,
) -> Likelihood:
    """Return ln p(x) under the model's probability flow, from the prior that `sample` starts from.

    Args:
        model: a `Denoiser`, or any function D(x_t, t), whose own derivative the trace is: one that takes
            a gradient itself does it by `torch.func.grad`, or with `create_graph=True`.
        x: data on the model's scale with shape (N, *).
        probes: number of Hutchinson's random signs for the trace, each a backward pass a call. None is
            the exact trace for vectors, with one backward pass a dimension, and 4 signs for images.
        seed: data point i's signs are a function of (seed, start + i) alone.
        start: number of the first data point.
        labels: class numbers with shape (N,), or one for all, for p(x | class).
        process: the SDE; a `Denoiser`'s own if None.
        mean: the data's mean, for priors that keep it; a `Denoiser`'s own if None, else zero.
        rtol: relative tolerance of the ODE.
        atol: absolute tolerance of the ODE.
        batch_size: data points at a time.

    Returns:
        The log-likelihoods in nats.

    Raises:
        ValueError: if an argument is not allowed, or the process is a chain.
        FloatingPointError: if the model's output is not finite.
    """
    given: dict[str, Any] = {"probes": probes, "seed": seed, "start": start, "process": process}
    given |= {"rtol": rtol, "atol": atol, "batch_size": batch_size}
    check_arguments("log_likelihood", log_likelihood, given)
    if probes is None and x.ndim > 2:
        probes = _PROBES
    if isinstance(model, Denoiser):
        process = process or model.process
        mean = model.data_mean if mean is None else mean
    else:
        model = as_denoise(model)
        if process is None:
            raise ValueError("a function D(x_t, t) needs a process")
    each = None if labels is None else torch.as_tensor(labels).expand(len(x))
    sde = as_sde(process, "a likelihood")
    first = sde.t_min
    alpha_first = float(sde.alpha(torch.tensor(first, dtype=torch.float64)))
    alpha_last = float(sde.alpha(torch.ones((), dtype=torch.float64)))
    centre = torch.as_tensor(mean if sde.prior_keeps_mean and mean is not None else 0.0)
    values, errors, nfe = [], [], 0
    with torch.no_grad():
        for low in range(0, len(x), batch_size):
            part = x[low : low + batch_size]
            shown = None if each is None else each[low : low + batch_size]
            denoise = model.along(sde, shown) if isinstance(model, Denoiser) else model
            size = part[0].numel()
            trace: Trace = exact_trace
            if probes is not None:
                points = range(start + low, start + low + len(part))
                u = random_uniform(seed, "probe", points, (probes, size), device=part.device)
                trace = hutchinson(2 * (u < 0.5).transpose(0, 1).double() - 1)
            end = flow(denoise, sde, part, first, 1.0, rtol=rtol, atol=atol, trace=trace)
            assert end.volume is not None
            z = ((end.x - centre.to(end.x)) / sde.prior_std()).flatten(1).double()
            std = sde.prior_std() / alpha_last  # of y
            prior = -0.5 * z.square().sum(1) - size * math.log(std * math.sqrt(2 * math.pi))
            estimates = prior[:, None] + end.volume - size * math.log(alpha_first)
            values.append(estimates.mean(1))
            several = estimates.shape[1]
            spread = estimates.std(1) if several > 1 else torch.full_like(prior, math.inf)
            errors.append(
                torch.zeros_like(prior) if probes is None else spread / math.sqrt(several)
            )
            nfe = max(nfe, end.nfe)
    return Likelihood(torch.cat(values), torch.cat(errors), nfe)


def dequantise(pixels: Tensor, levels: int | None, seed: int, start: int = 0) -> Tensor:
    """Return x + Δ u, grey levels spread uniformly over their bins of width Δ = 2 / (levels − 1).

    The density of such data bounds the probability of the grey levels from below (Theis, van den
    Oord and Bethge 2016, arXiv:1511.01844).

    Args:
        pixels: grey levels with shape (N, *).
        levels: number of grey levels.
        seed: data point i's u ~ U(−½, ½) is a function of (seed, start + i) alone.
        start: number of the first data point.

    Returns:
        Data with shape (N, *), in [−1 − Δ/2, 1 + Δ/2].

    Raises:
        ValueError: if the number of grey levels is not known.
    """
    width = bin_width(_known(levels))
    points = range(start, start + len(pixels))
    u = random_uniform(seed, "dequantise", points, pixels.shape[1:], device=pixels.device) - 0.5
    return to_unit(pixels, levels) + width * u


def bits_per_dim(log_prob: Tensor, dimensions: int, levels: int | None) -> Tensor:
    """Return −(log₂ p(x) / D + log₂ Δ), the bits that a grey level takes, Δ = 2 / (levels − 1).

    `log_prob` is ln p of dequantised data of D dimensions in nats. For 256 levels log₂ (1/Δ) = 6.99; it
    is 7 where data are scaled so that bins cover [−1, 1].
    """
    return -log_prob / (dimensions * math.log(2)) - math.log2(bin_width(_known(levels)))


def _known(levels: int | None) -> int:
    if levels is None:
        raise ValueError("bits per dimension need the number of grey levels, which these data lack")
    return levels
