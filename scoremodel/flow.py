"""The probability-flow ODE between two times, alone or with the change of volume along it.

In y = x_t / alpha_t and r = sigma_t / alpha_t the ODE of every linear SDE, and its change of volume, are

    dy / d(ln r) = y − D(x_t, t),        d ln p_t(y) / d(ln r) = −(d − tr ∂D/∂y)

(Karras et al. 2022, arXiv:2206.00364; Chen et al. 2018, arXiv:1806.07366). From noise to data it is
a sampler, from data to noise an encoder, and with the second equation a likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoremodel.derivatives import basis, pull_back
from scoremodel.parametrisation import Denoise
from scoremodel.processes.base import column
from scoremodel.processes.sde import SDE

__all__ = ["Flow", "Trace", "exact_trace", "flow", "hutchinson"]

Trace = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]
"""(function D of y, y with shape (B, *)) → (D(y), tr ∂D/∂y with shape (B, P) in P estimates)."""


@dataclass(frozen=True)
class Flow:
    """Where the ODE ends.

    Args:
        x: x at the last time with shape (B, *).
        volume: ∫ (d − tr ∂D/∂y) d(ln r) from the first time to the last with shape (B, P), or None.
        nfe: number of calls of the model.
    """

    x: Tensor
    volume: Tensor | None
    nfe: int


def flow(
    denoise: Denoise,
    process: SDE,
    x: Tensor,
    start: float,
    end: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trace: Trace | None = None,
) -> Flow:
    """Solve the ODE from time `start` to time `end` by adaptive Runge–Kutta (Dormand–Prince 5(4)).

    By torchode, in float64, which gives every sample its own step sizes: with one step size for the
    batch a sample would depend on its batch mates.

    Lienen and Günnemann 2022, arXiv:2210.12375 (torchode).

    Args:
        denoise: the model D(x_t, t), which is called in x's own type.
        process: an SDE.
        x: where it begins with shape (B, *).
        start: a time in [t_min, 1].
        end: another one, later or earlier.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of the data.
        trace: how tr ∂D/∂y is found; None leaves the volume out.

    Returns:
        The end.

    Raises:
        FloatingPointError: if the model's output is not finite, or no step size meets the tolerance.
    """
    import torchode

    shape, dtype, size = x.shape, x.dtype, x[0].numel()
    low, high = min(start, end), max(start, end)
    ends = torch.tensor([start, end], dtype=torch.float64)
    alpha_start, alpha_end = process.alpha(ends).tolist()
    calls = 0

    def slope(log_r: Tensor, state: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        y = state[:, :size]
        t = process.t_of_ratio(log_r.exp()).clamp(low, high)
        alpha = process.alpha(t)

        def at(y: Tensor) -> Tensor:
            x_t = column(alpha, y) * y
            return denoise(x_t.view(shape).to(dtype), t.to(dtype)).flatten(1).double()

        if trace is None:
            denoised, rates = at(y), y[:, :0]
        else:
            denoised, traces = trace(at, y)
            rates = size - traces
        if not bool(denoised.isfinite().all()):
            raise FloatingPointError("the model's output is not finite")
        return torch.cat([y - denoised, rates], dim=1)

    begin = (x / alpha_start).flatten(1).double()
    if trace is not None:
        columns = trace(lambda y: y, begin)[1].shape[1]
        begin = torch.cat([begin, begin.new_zeros(len(begin), columns)], dim=1)
    term = torchode.ODETerm(slope)
    solver = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term), torchode.IntegralController(atol=atol, rtol=rtol, term=term)
    )
    span = [begin.new_full((len(begin),), math.log(r)) for r in process.ratio(ends).tolist()]
    solution = solver.solve(torchode.InitialValueProblem(begin, *span))
    if bool(solution.status.any()):
        raise FloatingPointError(
            f"no step size meets rtol={rtol}, atol={atol} "
            f"(torchode's status {int(solution.status.max())})"
        )
    last = solution.ys[:, -1]
    return Flow(
        (alpha_end * last[:, :size]).view(shape).to(dtype),
        None if trace is None else last[:, size:],
        calls,
    )


def exact_trace(function: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Return D(y) and tr ∂D/∂y (B, 1) for vectors y (B, d), with one backward pass a dimension."""
    value, pulled = pull_back(function, y, basis(y))
    return value, pulled.diagonal(dim1=0, dim2=2).sum(-1, keepdim=True)


def hutchinson(probes: Tensor) -> Trace:
    """Return the estimator vᵀ (∂D/∂y) v of the trace, one for each probe v of shape (P, B, d).

    It is unbiased if E[v vᵀ] = I, as of random signs or normal numbers. Hutchinson 1989; Grathwohl et
    al. 2019, arXiv:1810.01367, who keep v along the whole path.
    """

    def trace(function: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        value, pulled = pull_back(function, y, probes)
        return value, (pulled * probes).sum(2).T

    return trace
