"""Samplers with noise: the reverse-time SDE dx = [f x − g² ∇ log p_t] dt + g dw̄, and what it becomes.

Each takes one step from t to s < t. In terms of the kernel the forward transition is
p(x_t | x_s) = N(a x_s, v I) with a = alpha_t / alpha_s and v = sigma_t² − a² sigma_s²; the score is
(alpha_t D − x_t) / sigma_t². All end without noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Unit
from scoremodel.processes.base import Process, column
from scoremodel.processes.sde import as_sde
from scoremodel.samplers.base import (
    SAMPLERS,
    Call,
    Draw,
    GridSampler,
    Linear,
    LinearSampler,
    advance,
)
from scoremodel.samplers.grid import Kernel, kernel_steps, time_grid

__all__ = [
    "DDIM",
    "Ancestral",
    "EulerMaruyama",
    "PredictorCorrector",
    "ReverseDiffusion",
]


@SAMPLERS.register("euler_maruyama")
@dataclass(frozen=True)
class EulerMaruyama(LinearSampler):
    """Euler–Maruyama on the reverse SDE, from t to s = t − Δ.

        x_s = x_t − Δ (f x_t − g² s(x_t, t)) + g sqrt(Δ) z

    The last step, to t_min, leaves the noise out. NFE = steps. For SDEs only. Few steps
    amplify the noise (`growth`): on VE, 5 of them to 42 times the prior's.

    Song et al. 2021, arXiv:2011.13456, appendix D.
    """

    def plan(self, process: Process) -> Sequence[Linear]:
        """Return x_s = (1 − Δ f − Δ g²/sigma²) x + (Δ g² alpha/sigma²) D + g sqrt(Δ) z as floats."""
        sde = as_sde(process, self.kind)
        times = time_grid(sde, self.steps + 1, self.grid)
        t = torch.tensor(times[:-1], dtype=torch.float64)
        delta = torch.tensor([a - b for a, b in pairwise(times)], dtype=torch.float64)
        pull = delta * (sde.g(t) / sde.sigma(t)) ** 2
        noise = sde.g(t) * delta.sqrt()
        noise[-1] = 0.0
        a, b = 1 - delta * sde.f(t) - pull, pull * sde.alpha(t)
        columns = (times[:-1], a.tolist(), b.tolist(), noise.tolist())
        return [Linear(*row) for row in zip(*columns, strict=True)]


@SAMPLERS.register("reverse_diffusion")
@dataclass(frozen=True)
class ReverseDiffusion(LinearSampler):
    """The reverse of the forward chain's own step, x_t = a x_s + sqrt(v) z.

        x_s = (2 − a) x_t + v s(x_t, t) + sqrt(v) z

    For VE it is NCSN's and for VP, with a = sqrt(1 − β), DDPM's chain reversed. The last step
    leaves the noise out. NFE = steps.

    Song et al. 2021, arXiv:2011.13456, appendix E.
    """

    def plan(self, process: Process) -> Sequence[Linear]:
        """Return the steps over the grid, the last one to t_min and without noise."""
        steps = kernel_steps(process, self.steps, self.grid, denoise_last=False)
        plan = [_reverse_diffusion(step) for step in steps]
        return [*plan[:-1], plan[-1]._replace(c=0.0)]


def _reverse_diffusion(step: Kernel) -> Linear:
    a, v = step.transition
    pull = v / step.sigma_t**2
    return Linear(step.t, 2 - a - pull, pull * step.alpha_t, math.sqrt(v))


@SAMPLERS.register("ancestral")
@dataclass(frozen=True)
class Ancestral(LinearSampler):
    """Sample p(x_s | x_t, x_0 = D): DDPM's sampler, and NCSN's, for any process and any grid.

        x_s = (a sigma_s² x_t + alpha_s v D) / sigma_t² + c z,
        c² = v sigma_s² / sigma_t² (posterior)   or   c² = v (kernel),

    the smallest and the largest variance that DDPM names. The last step, to alpha = 1 and
    sigma = 0, gives D itself. NFE = steps.

    Ho et al. 2020, arXiv:2006.11239; for NCSN Song et al. 2021, arXiv:2011.13456, appendix F.

    Args:
        variance: "posterior" or "kernel".
    """

    variance: Literal["posterior", "kernel"] = "posterior"

    def plan(self, process: Process) -> Sequence[Linear]:
        """Return the steps over the grid, the last one to sigma = 0."""
        plan = []
        for step in kernel_steps(process, self.steps, self.grid):
            a, v = step.transition
            ratio = (step.sigma_s / step.sigma_t) ** 2
            c = math.sqrt(v * ratio if self.variance == "posterior" else v) if step.sigma_s else 0.0
            plan.append(Linear(step.t, a * ratio, step.alpha_s * v / step.sigma_t**2, c))
        return plan


@SAMPLERS.register("ddim")
@dataclass(frozen=True)
class DDIM(LinearSampler):
    """DDIM: from no noise (η = 0, the ODE's Euler method) to ancestral sampling (η = 1).

        x_s = alpha_s D + sqrt(sigma_s² − c²) (x_t − alpha_t D) / sigma_t + c z,
        c² = η² v sigma_s² / sigma_t²

    NFE = steps. Song, Meng and Ermon 2021, arXiv:2010.02502, eq. 12 and 16.

    Args:
        eta: η in [0, 1].
    """

    eta: Unit = 0.0

    def plan(self, process: Process) -> Sequence[Linear]:
        """Return the steps over the grid, the last one to sigma = 0."""
        plan = []
        for step in kernel_steps(process, self.steps, self.grid):
            _, v = step.transition
            c = self.eta * math.sqrt(v) * step.sigma_s / step.sigma_t
            keep = math.sqrt(max(step.sigma_s**2 - c**2, 0.0)) / step.sigma_t
            plan.append(Linear(step.t, keep, step.alpha_s - keep * step.alpha_t, c))
        return plan


_MANY_DIMENSIONS = 64
"""From so many on a sample's own norm is a measure of its noise: see `PredictorCorrector`."""


def _squared_norms(x: Tensor) -> Tensor:
    """Return each sample's own |x|² with shape (B,), for x with shape (B, *)."""
    flat = x.flatten(1)
    squared: Tensor = torch.linalg.vecdot(flat, flat)
    return squared


class _Corrected(NamedTuple):
    """The predictor's step, and the corrector's at the time reached: as it is, or by norms.

    There the score is pull · D − push · x, and e = scale |z|² / |s|².
    """

    predictor: Linear
    corrector: Linear
    pull: float
    push: float
    scale: float


@SAMPLERS.register("predictor_corrector")
@dataclass(frozen=True)
class PredictorCorrector(GridSampler):
    """A predictor's step, by default of reverse diffusion, then a Langevin step at the time reached.

        x ← x + e s(x, s) + sqrt(2 e) z,
        e = 2 α (snr |z| / |s|)²   ("norm"),        e = 2 α (snr sigma_s)²   ("sigma")

    with α = 1 for VE and (alpha_t / alpha_s)² of the step just taken otherwise. Both are Song's: his
    `LangevinCorrector`, whose norms are here each sample's own, since a mean over the batch would make
    a sample depend on its batch mates, and his `AnnealedLangevinDynamics`. The last step has no
    corrector, and of reverse diffusion no noise. NFE = 2 · steps − 1.

    A sample's own norm is a measure of the noise in many dimensions only. In D of them |s|² is about
    chi-squared, so that 1 / |s|² has no mean for D ≤ 2 and no variance for D ≤ 4: a sample whose score
    happens to be small is thrown far away. On N(−3, 4.3²) with the exact score, VE from 50 to 0.01 and
    1,000 steps, the standard deviation by "norm" is in the thousands in one dimension, 20 to 60 in two,
    5.5 in 8, 4.5 in 64 and 4.36 in 784; by "sigma" it is 4.31 in all. "auto" is "norm", as published
    for images, in 64 dimensions (8×8 pixels) and more, and "sigma" in fewer.

    Song et al. 2021, arXiv:2011.13456, algorithms 4 and 5, and their code's `sampling.py`.

    Args:
        steps: number of predictor steps.
        grid: how the times are spaced, see `time_grid`.
        snr: the corrector's signal-to-noise ratio; from 1 on its steps would not converge.
        step_size: what the corrector's step follows: "norm", "sigma", or "auto".
        predictor: whose step comes before each of the corrector's: one of these samplers by its name, or
            in Python any linear sampler, whose own `steps` and `grid` do not count here.
    """

    snr: Annotated[float, Bounds(ge=1e-6, lt=1)] = 0.16
    step_size: Literal["auto", "norm", "sigma"] = "auto"
    predictor: (
        Literal["reverse_diffusion", "euler_maruyama", "ancestral", "ddim"]
        | Annotated[LinearSampler, "Ancestral(18)"]
    ) = "reverse_diffusion"

    def plan(self, process: Process) -> Sequence[_Corrected]:
        """Return the predictor's steps over the grid, each but the last with its corrector."""
        predictors = self._predictor().plan(process)
        times = [*(step.t for step in predictors), process.t_min]
        t = torch.tensor(times, dtype=torch.float64)
        levels = list(zip(times, process.alpha(t).tolist(), process.sigma(t).tolist(), strict=True))
        plan = []
        for predictor, (_, alpha_t, _), (s, alpha_s, sigma_s) in zip(
            predictors, levels[:-1], levels[1:], strict=True
        ):
            push = 1 / sigma_s**2
            scale = 2 * (alpha_t / alpha_s) ** 2 * self.snr**2
            corrector = Linear(s, 1 - scale, scale * alpha_s, sigma_s * math.sqrt(2 * scale))
            plan.append(_Corrected(predictor, corrector, alpha_s * push, push, scale))
        return [*plan[:-1], plan[-1]._replace(scale=0.0)]

    def _predictor(self) -> LinearSampler:
        if isinstance(self.predictor, LinearSampler):
            return replace(self.predictor, steps=self.steps, grid=self.grid)
        made: LinearSampler = SAMPLERS.make(self.predictor, steps=self.steps, grid=self.grid)
        return made

    def call_times(self, plan: Sequence[_Corrected]) -> list[float]:
        """Return the predictor's and the corrector's time of each step."""
        return [t for step in plan for t in (step.predictor.t, step.corrector.t)]

    def calls(self, plan: Sequence[_Corrected]) -> int:
        """Return a call for each predictor, and one for each corrector."""
        return sum(2 if step.scale else 1 for step in plan)

    def states(
        self, plan: Sequence[_Corrected], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each predictor step and its corrector."""
        many = x[0].numel() >= _MANY_DIMENSIONS
        by_norm = self.step_size == "norm" or (self.step_size == "auto" and many)
        for predictor, corrector, pull, push, scale in plan:
            x = advance(predictor, x, denoise, draw)
            if scale and by_norm:
                score = (pull * denoise(x, corrector.t)).sub_(x, alpha=push)
                z = draw()
                e = column((_squared_norms(z) / _squared_norms(score)).mul_(scale), x)
                x.addcmul_(e, score).addcmul_((2 * e).sqrt_(), z)
            elif scale:
                x = advance(corrector, x, denoise, draw)
            yield x
