"""Samplers of the probability-flow ODE dx = [f x − ½ g² ∇ log p_t] dt.

In the variables y = x_t / alpha_t and r = sigma_t / alpha_t the ODE of every linear SDE is

    dy/dr = (y − D(x_t, t)) / r,

whose solutions are nearly straight lines (Karras et al. 2022, arXiv:2206.00364): the steps are taken
in r, and end with the denoised mean, which is the exact step to r = 0 for a constant D. Chains have
the same ODE between their levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from scoremodel.bounds import Tolerance
from scoremodel.flow import flow
from scoremodel.processes.base import Process
from scoremodel.processes.sde import SDE, as_sde
from scoremodel.samplers.base import SAMPLERS, Call, Draw, Linear, LinearSampler, Sampler
from scoremodel.samplers.grid import Grid, Kernel, kernel_steps

__all__ = ["Euler", "RungeKutta"]


@SAMPLERS.register("euler")
@dataclass(frozen=True)
class Euler(LinearSampler):
    """Euler's method on the probability-flow ODE, order 1; the same as DDIM with η = 0. NFE = steps.

        y_s = y_t + (r_s − r_t) (y_t − D) / r_t

    Karras et al. 2022, arXiv:2206.00364.

    Args:
        denoise_last: whether the last step goes from t_min to r = 0; if not, the result is x at
            t_min, the ODE's own solution.
    """

    grid: Grid = "edm"
    denoise_last: bool = True

    def plan(self, process: Process) -> Sequence[Linear]:
        """Return x_s = (alpha_s r_s / (alpha_t r_t)) x_t + alpha_s (1 − r_s / r_t) D over the grid."""
        plan = []
        for step in kernel_steps(process, self.steps, self.grid, self.denoise_last):
            shrink = step.r_s / step.r_t
            a, b = step.alpha_s / step.alpha_t * shrink, step.alpha_s * (1 - shrink)
            plan.append(Linear(step.t, a, b, 0.0))
        return plan


@SAMPLERS.register("runge_kutta")
@dataclass(frozen=True)
class RungeKutta(Sampler):
    """Adaptive Runge–Kutta (Dormand–Prince 5(4)) on the ODE in ln r, then the denoised mean.

        dy / d(ln r) = y − D(x_t, t)

    with step sizes of its own for every sample, see `scoremodel.flow`. NFE is what the batch's slowest
    sample takes, averaged over batches. For SDEs only, which have every noise level.

    Song et al. 2021, arXiv:2011.13456, appendix D.4, use rtol = atol = 1e-5.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance, in units of the data.
        denoise_last: whether the result is D at t_min; if not, it is x there.
    """

    rtol: Tolerance = 1e-5
    atol: Tolerance = 1e-5
    denoise_last: bool = True

    def plan(self, process: Process) -> Sequence[tuple[SDE, Kernel]]:
        """Return the one step from t = 1 to t_min."""
        sde = as_sde(process, self.kind)
        (whole,) = kernel_steps(sde, 1, "uniform", denoise_last=False)
        return [(sde, whole)]

    def call_times(self, plan: Sequence[tuple[SDE, Kernel]]) -> list[float]:
        """Return t_min; the others are the solver's choice."""
        return [plan[0][1].s]

    def calls(self, plan: Sequence[tuple[SDE, Kernel]]) -> None:
        """Return None: as many as the tolerances take."""
        return

    def states(
        self, plan: Sequence[tuple[SDE, Kernel]], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the solution at t_min, or its denoised mean."""
        ((process, whole),) = plan
        try:
            x = flow(denoise, process, x, whole.t, whole.s, rtol=self.rtol, atol=self.atol).x
        except FloatingPointError as error:
            raise FloatingPointError(f"{self.kind}: {error}") from error
        yield denoise(x, whole.s) if self.denoise_last else x
