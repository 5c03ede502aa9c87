"""Samplers of the probability-flow ODE dx = [f x − ½ g² ∇ log p_t] dt.

In the variables y = x_t / alpha_t and r = sigma_t / alpha_t the ODE of every linear SDE is

    dy/dr = (y − D(x_t, t)) / r,

whose solutions are nearly straight lines (Karras et al. 2022, arXiv:2206.00364): the steps are taken
in r, and end with the denoised mean, which is the exact step to r = 0 for a constant D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from scoremodel.samplers.base import Call, Draw, Grid, Sampler, time_grid
from scoremodel.sde import SDE

__all__ = ["Euler", "Heun"]


class _Step(NamedTuple):
    """From t to s: alpha_t, r_t, alpha_s, r_s; r_s = 0 says that the result is D itself."""

    t: float
    alpha_t: float
    r_t: float
    s: float
    alpha_s: float
    r_s: float


@dataclass(frozen=True)
class _ProbabilityFlow(Sampler):
    grid: Grid = "edm"
    denoise_last: bool = True

    def plan(self, sde: SDE) -> Sequence[_Step]:
        """Return the steps over the grid; with `denoise_last` the last of them ends at r = 0."""
        points = self.steps if self.denoise_last else self.steps + 1
        times = time_grid(sde, points, self.grid)
        t = torch.tensor(times, dtype=torch.float64)
        nodes = list(zip(times, sde.alpha(t).tolist(), sde.ratio(t).tolist(), strict=True))
        if self.denoise_last:
            nodes.append((0.0, 1.0, 0.0))
        return [_Step(*here, *there) for here, there in pairwise(nodes)]


class Euler(_ProbabilityFlow):
    """Euler's method on the probability-flow ODE (DDIM), order 1. NFE = steps.

        y_s = y_t + (r_s − r_t) (y_t − D) / r_t

    Song, Meng, Ermon 2021, arXiv:2010.02502; Karras et al. 2022, arXiv:2206.00364.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    kind: ClassVar[str] = "euler"

    def advance(self, step: _Step, x: Tensor, denoise: Call, draw: Draw) -> Tensor:
        """Return x_s = (alpha_s r_s / (alpha_t r_t)) x_t + alpha_s (1 − r_s / r_t) D."""
        denoised = denoise(x, step.t)
        if step.r_s == 0:
            return denoised
        shrink = step.r_s / step.r_t
        return (step.alpha_s / step.alpha_t * shrink * x).add_(
            denoised, alpha=step.alpha_s * (1 - shrink)
        )


class Heun(_ProbabilityFlow):
    """Heun's method on the probability-flow ODE, order 2. NFE = 2 · steps − 1.

        d = (y_t − D(x_t, t)) / r_t,          y' = y_t + (r_s − r_t) d,
        d' = (y' − D(alpha_s y', s)) / r_s,   y_s = y_t + ½ (r_s − r_t) (d + d')

    The last step, to r = 0, is Euler's (with `denoise_last`; without it NFE = 2 · steps).

    Karras et al. 2022, arXiv:2206.00364, algorithm 1.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    kind: ClassVar[str] = "heun"

    def advance(self, step: _Step, x: Tensor, denoise: Call, draw: Draw) -> Tensor:
        """Return alpha_s y_s."""
        denoised = denoise(x, step.t)
        if step.r_s == 0:
            return denoised
        h = step.r_s - step.r_t
        y = x / step.alpha_t
        slope = (y - denoised).div_(step.r_t)
        guess = torch.add(y, slope, alpha=h)
        ahead = denoise(step.alpha_s * guess, step.s)
        slope.add_(guess.sub_(ahead), alpha=1 / step.r_s)
        return y.add_(slope, alpha=h / 2).mul_(step.alpha_s)
