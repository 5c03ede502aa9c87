"""Samplers of the probability-flow ODE dx = [f x − ½ g² ∇ log p_t] dt.

In the variables y = x_t / alpha_t and r = sigma_t / alpha_t the ODE of every linear SDE is

    dy/dr = (y − D(x_t, t)) / r,

whose solutions are nearly straight lines (Karras et al. 2022, arXiv:2206.00364): the steps are taken
in r, and end with the denoised mean, which is the exact step to r = 0 for a constant D. Chains have
the same ODE between their levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoremodel.samplers.base import Call, Draw, Grid, Kernel, Sampler, as_sde, kernel_steps
from scoremodel.samplers.reverse_sde import _Multistep, multistep_states
from scoremodel.sde import Process

__all__ = ["DPMSolver", "Euler", "Heun", "RungeKutta"]


@dataclass(frozen=True)
class _ProbabilityFlow(Sampler):
    grid: Grid = "edm"
    denoise_last: bool = True

    def steps_of(self, process: Process) -> list[Kernel]:
        """Return the steps over the grid; with `denoise_last` the last of them ends at r = 0."""
        return kernel_steps(process, self.steps, self.grid, self.denoise_last)


class _KernelFlow(_ProbabilityFlow):
    def plan(self, process: Process) -> Sequence[Kernel]:
        """Return the steps over the grid."""
        return self.steps_of(process)


class Euler(_KernelFlow):
    """Euler's method on the probability-flow ODE, order 1; the same as DDIM with η = 0. NFE = steps.

        y_s = y_t + (r_s − r_t) (y_t − D) / r_t

    Karras et al. 2022, arXiv:2206.00364.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    kind: ClassVar[str] = "euler"

    def states(
        self, plan: Sequence[Kernel], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield x_s = (alpha_s r_s / (alpha_t r_t)) x_t + alpha_s (1 − r_s / r_t) D."""
        for step in plan:
            shrink = step.r_s / step.r_t
            x = (step.alpha_s / step.alpha_t * shrink * x).add_(
                denoise(x, step.t), alpha=step.alpha_s * (1 - shrink)
            )
            yield x


class Heun(_KernelFlow):
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

    def states(
        self, plan: Sequence[Kernel], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield alpha_s y_s after each step."""
        for step in plan:
            denoised = denoise(x, step.t)
            if step.r_s == 0:
                x = denoised
            else:
                h = step.r_s - step.r_t
                y = x / step.alpha_t
                slope = (y - denoised).div_(step.r_t)
                guess = torch.add(y, slope, alpha=h)
                ahead = denoise(step.alpha_s * guess, step.s)
                slope.add_(guess.sub_(ahead), alpha=1 / step.r_s)
                x = y.add_(slope, alpha=h / 2).mul_(step.alpha_s)
            yield x


@dataclass(frozen=True)
class DPMSolver(_ProbabilityFlow):
    """DPM-Solver++(2M), order 2 with one call a step. NFE = steps.

        x_s = (sigma_s / sigma_t) x_t − alpha_s (e^{−h} − 1) D̂,
        D̂ = (1 + 1/(2ρ)) D_t − D_prev / (2ρ),   ρ = h_prev / h,   h = ln(r_t / r_s)

    The first step, and the last with `denoise_last`, use D̂ = D.

    Lu et al. 2022, arXiv:2211.01095, algorithm 2.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    grid: Grid = "log_snr"

    kind: ClassVar[str] = "dpm_solver"

    def plan(self, process: Process) -> Sequence[_Multistep]:
        """Return x_s = a x + b D + previous · D_prev as floats."""
        plan: list[_Multistep] = []
        last = 0.0
        for step in self.steps_of(process):
            if step.sigma_s == 0:
                plan.append(_Multistep(step.t, 0.0, 1.0, 0.0, 0.0))
                continue
            h = math.log(step.r_t / step.r_s)
            gain = -step.alpha_s * math.expm1(-h)
            extra = gain * h / (2 * last) if last else 0.0
            a = step.sigma_s / step.sigma_t
            plan.append(_Multistep(step.t, a, gain + extra, -extra, 0.0))
            last = h
        return plan

    def states(
        self, plan: Sequence[_Multistep], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield x_s after each step."""
        return multistep_states(plan, x, denoise, draw)


@dataclass(frozen=True)
class RungeKutta(Sampler):
    """SciPy's adaptive RK45 on dy/dr = (y − D) / r in the variable ln r, then the denoised mean.

    Each sample is solved by itself, because a step size shared by the batch would make it depend on
    its batch mates; so it is slow, and there to check the others. NFE is the mean over samples.

    Song et al. 2021, arXiv:2011.13456, appendix D.4, use rtol = atol = 1e-5.

    Args:
        steps: 1; the solver chooses its own steps.
        grid: not used; the solver chooses its own times.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of the data.
        denoise_last: whether the result is D at t_min; if not, it is x there.
    """

    steps: int = 1
    rtol: float = 1e-5
    atol: float = 1e-5
    denoise_last: bool = True

    kind: ClassVar[str] = "runge_kutta"

    def plan(self, process: Process) -> Sequence[tuple[Process, list[Kernel]]]:
        """Return the one step from t = 1 to t_min."""
        sde = as_sde(process, self.kind)
        return [(sde, kernel_steps(sde, 1, "uniform", denoise_last=False))]

    def states(
        self,
        plan: Sequence[tuple[Process, list[Kernel]]],
        x: Tensor,
        denoise: Call,
        draw: Draw,
    ) -> Iterator[Tensor]:
        """Yield the solution at t_min, or its denoised mean."""
        from scipy.integrate import solve_ivp

        ((process, (whole,)),) = plan

        def solved(row: Tensor) -> Tensor:
            def slope(log_r: float, y: np.ndarray) -> np.ndarray:
                r = torch.tensor(math.exp(log_r), dtype=torch.float64)
                t = process.t_of_ratio(r)
                state = float(process.alpha(t)) * torch.from_numpy(y).to(row).view(1, *row.shape)
                denoised = denoise(state, float(t))
                change: np.ndarray = y - denoised.flatten().double().cpu().numpy()
                return change

            solution = solve_ivp(
                slope,
                (math.log(whole.r_t), math.log(whole.r_s)),
                (row / whole.alpha_t).flatten().double().cpu().numpy(),
                rtol=self.rtol,
                atol=self.atol,
            )
            return whole.alpha_s * torch.from_numpy(solution.y[:, -1]).to(row).view(row.shape)

        x = torch.stack([solved(row) for row in x])
        yield denoise(x, whole.s) if self.denoise_last else x
