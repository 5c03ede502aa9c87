"""DPM-Solver++(2M): second order with one network call a step, for the ODE and for the reverse SDE.

Both solve their equation exactly for a denoised mean D that is linear in λ = ln(alpha_t / sigma_t),
extrapolated from this step's D and the last one's. With h = ln(r_t / r_s) the step from t to s, and
ρ = h_prev / h,

    D̂ = D_t + (D_t − D_prev) / (2 ρ),

    ODE    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 − e^{−h}) D̂
    SDE    x_s = (sigma_s / sigma_t) e^{−h} x_t + alpha_s (1 − e^{−2h}) D̂ + sigma_s sqrt(1 − e^{−2h}) z

Lu, Zhou, Bao, Chen, Li, Zhu: DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
Models, 2022, arXiv:2211.01095, algorithm 2 and appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from scoremodel.processes.base import Process
from scoremodel.samplers.base import SAMPLERS, Call, Draw, GridSampler
from scoremodel.samplers.grid import Grid, Kernel, kernel_steps

__all__ = ["DPMSolver", "SDEDPMSolver"]


class _Step(NamedTuple):
    """x ← a x + b D + previous · D_prev + c z."""

    t: float
    a: float
    b: float
    previous: float
    c: float


def _plan(steps: Sequence[Kernel], noisy: bool) -> list[_Step]:
    plan: list[_Step] = []
    last = 0.0
    for step in steps:
        if step.sigma_s == 0:
            plan.append(_Step(step.t, 0.0, 1.0, 0.0, 0.0))
            continue
        h = math.log(step.r_t / step.r_s)
        gain = -math.expm1(-2 * h if noisy else -h)
        extra = step.alpha_s * gain * h / (2 * last) if last else 0.0
        a = step.sigma_s / step.sigma_t * (math.exp(-h) if noisy else 1.0)
        c = step.sigma_s * math.sqrt(gain) if noisy else 0.0
        plan.append(_Step(step.t, a, step.alpha_s * gain + extra, -extra, c))
        last = h
    return plan


class _Multistep(GridSampler):
    def states(
        self, plan: Sequence[_Step], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield a x + b D + previous · D_prev + c z after each step."""
        before: Tensor | None = None
        for t, a, b, previous, c in plan:
            denoised = denoise(x, t)
            x = (a * x).add_(denoised, alpha=b)
            if before is not None and previous:
                x.add_(before, alpha=previous)
            if c:
                x.add_(draw(), alpha=c)
            before = denoised
            yield x


@SAMPLERS.register("dpm_solver")
@dataclass(frozen=True)
class DPMSolver(_Multistep):
    """DPM-Solver++(2M) on the probability-flow ODE, order 2. NFE = steps.

    The first step, and the last with `denoise_last`, use D̂ = D.

    Args:
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    grid: Grid = "log_snr"
    denoise_last: bool = True

    def plan(self, process: Process) -> Sequence[_Step]:
        """Return the steps over the grid, without noise."""
        return _plan(kernel_steps(process, self.steps, self.grid, self.denoise_last), noisy=False)


@SAMPLERS.register("sde_dpm_solver")
@dataclass(frozen=True)
class SDEDPMSolver(_Multistep):
    """SDE-DPM-Solver++(2M) on the reverse SDE. NFE = steps.

    The first step and the last (to sigma = 0, where the result is D) use D̂ = D.
    """

    grid: Grid = "log_snr"

    def plan(self, process: Process) -> Sequence[_Step]:
        """Return the steps over the grid, the last one to sigma = 0."""
        return _plan(kernel_steps(process, self.steps, self.grid), noisy=True)
