"""Heun's method, of order 2 with two network calls a step: on the ODE, and with noise put back.

In y = x_t / alpha_t and r = sigma_t / alpha_t the probability-flow ODE is dy/dr = (y − D) / r; a step
from r_t to r_s is

    d = (y_t − D(x_t, t)) / r_t,          y' = y_t + (r_s − r_t) d,
    d' = (y' − D(alpha_s y', s)) / r_s,   y_s = y_t + ½ (r_s − r_t) (d + d').

Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
arXiv:2206.00364, algorithms 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, NonNegative
from scoremodel.processes.base import Process
from scoremodel.processes.sde import as_sde
from scoremodel.samplers.base import SAMPLERS, Call, Draw, GridSampler
from scoremodel.samplers.grid import Grid, kernel_steps

__all__ = ["Heun", "StochasticHeun"]


class _Step(NamedTuple):
    """x̂ = keep · x + churn · z, x' = p x̂ + q D(x̂, t), x ← a x̂ + b D + c x' + e D(x', s)."""

    keep: float
    churn: float
    t: float
    s: float
    p: float
    q: float
    a: float
    b: float
    c: float
    e: float


def _step(t: float, alpha_t: float, r_t: float, s: float, alpha_s: float, r_s: float) -> _Step:
    """Return the coefficients in x of one step from r_t to r_s, without noise."""
    left = r_s / r_t
    if r_s == 0:
        return _Step(1.0, 0.0, t, s, 0.0, alpha_s, 0.0, 0.0, 0.0, 0.0)
    half = (r_s - r_t) / 2
    return _Step(
        keep=1.0,
        churn=0.0,
        t=t,
        s=s,
        p=alpha_s / alpha_t * left,
        q=alpha_s * (1 - left),
        a=alpha_s / alpha_t * (1 + half / r_t),
        b=-alpha_s * half / r_t,
        c=half / r_s,
        e=-alpha_s * half / r_s,
    )


@dataclass(frozen=True)
class _TwoCalls(GridSampler):
    grid: Grid = "edm"

    def call_times(self, plan: Sequence[_Step]) -> list[float]:
        """Return the beginning and the end of each step."""
        return [t for step in plan for t in (step.t, step.s)]

    def calls(self, plan: Sequence[_Step]) -> int:
        """Return two calls a step, one for a step to r = 0."""
        return sum(2 if step.e else 1 for step in plan)

    def states(
        self, plan: Sequence[_Step], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each step; the step to r = 0 gives D with one call."""
        for keep, churn, t, s, p, q, a, b, c, e in plan:
            if churn:
                x = (keep * x).add_(draw(), alpha=churn)
            denoised = denoise(x, t)
            if not e:
                x = denoised
            else:
                guess = (p * x).add_(denoised, alpha=q)
                x = (a * x).add_(denoised, alpha=b).add_(guess, alpha=c)
                x.add_(denoise(guess, s), alpha=e)
            yield x


@SAMPLERS.register("heun")
@dataclass(frozen=True)
class Heun(_TwoCalls):
    """Heun's method on the probability-flow ODE, order 2. NFE = 2 · steps − 1.

    The last step, to r = 0, is Euler's (with `denoise_last`; without it NFE = 2 · steps).

    Args:
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    denoise_last: bool = True

    def plan(self, process: Process) -> Sequence[_Step]:
        """Return the steps over the grid; with `denoise_last` the last of them ends at r = 0."""
        return [
            _step(step.t, step.alpha_t, step.r_t, step.s, step.alpha_s, step.r_s)
            for step in kernel_steps(process, self.steps, self.grid, self.denoise_last)
        ]


@SAMPLERS.register("stochastic_heun")
@dataclass(frozen=True)
class StochasticHeun(_TwoCalls):
    """EDM's stochastic sampler: raise the noise a little, then a step of Heun's method on the ODE.

        r̂ = r_t (1 + γ),   ŷ = y + s_noise sqrt(r̂² − r_t²) z,   then Heun from r̂ to r_s

    with γ = min(s_churn / steps, √2 − 1) where r_t is between s_min and s_max, else 0. Unlike EDM's, r̂
    is at most the process's largest r, beyond which it has no time; so no noise is added at first.
    NFE = 2 · steps − 1. For SDEs only, which have every noise level.

    Args:
        s_churn: amount of noise added over all steps.
        s_min: smallest noise ratio at which noise is added.
        s_max: largest.
        s_noise: factor on the added noise.
    """

    s_churn: NonNegative = 40.0
    s_min: NonNegative = 0.05
    s_max: Annotated[float, Bounds(gt=0, le=1e12, above="s_min")] = 50.0
    s_noise: Annotated[float, Bounds(ge=0, le=100)] = 1.003

    def plan(self, process: Process) -> Sequence[_Step]:
        """Return the steps from the raised noise levels r̂ over the grid."""
        sde = as_sde(process, self.kind)
        kernels = kernel_steps(sde, self.steps, self.grid)
        largest = kernels[0].r_t
        gamma = min(self.s_churn / self.steps, math.sqrt(2) - 1)
        raised = [
            min(k.r_t * (1 + gamma), largest) if self.s_min <= k.r_t <= self.s_max else k.r_t
            for k in kernels
        ]
        t = sde.t_of_ratio(torch.tensor(raised, dtype=torch.float64)).clamp(0, 1)
        plan = []
        for k, r, t_hat, alpha in zip(
            kernels, raised, t.tolist(), sde.alpha(t).tolist(), strict=True
        ):
            if r > k.r_t:
                churn = alpha * self.s_noise * math.sqrt(r**2 - k.r_t**2)
                step = _step(t_hat, alpha, r, k.s, k.alpha_s, k.r_s)
                plan.append(step._replace(keep=alpha / k.alpha_t, churn=churn))
            else:
                plan.append(_step(k.t, k.alpha_t, k.r_t, k.s, k.alpha_s, k.r_s))
        return plan
