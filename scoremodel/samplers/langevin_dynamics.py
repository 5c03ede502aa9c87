"""Langevin dynamics: from any score by itself, and annealed over many noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive, Steps
from scoremodel.processes.base import Process
from scoremodel.processes.chain import Chain
from scoremodel.processes.ncsn import langevin_step_size
from scoremodel.rng import random_normal
from scoremodel.samplers.base import SAMPLERS, Call, Draw, GridSampler, Sampler
from scoremodel.samplers.grid import Grid, kernel_steps

__all__ = ["AnnealedLangevin", "Langevin", "unadjusted_langevin"]


def unadjusted_langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    step_size: float,
    steps: int,
    seed: int,
    *,
    temperature: float = 1.0,
    start: int = 0,
) -> Tensor:
    """Return x after `steps` steps of unadjusted Langevin dynamics, each chain with its own noise.

        x ← x + e s(x) + sqrt(2 e T) z

    For small e its stationary density is p^(1/T); for N(m, v I) and T = 1 the stationary variance
    is exactly 2 e / (1 − (1 − e/v)²).

    Args:
        score: ∇ log p, from shape (B, *) to shape (B, *).
        x: where the chains start, with shape (B, *).
        step_size: e.
        steps: number of steps, at least 1.
        seed: chain i's noise is a function of (seed, start + i) alone.
        temperature: T, at least 0; 0 climbs to a mode.
        start: number of the first chain.

    Returns:
        The last states with shape (B, *).
    """
    if not (0 < step_size < math.inf and steps >= 1 and 0 <= temperature < math.inf):
        raise ValueError(
            f"unadjusted_langevin needs step_size > 0, steps >= 1 and temperature >= 0, got {step_size}, "
            f"{steps} and {temperature}"
        )
    chains = range(start, start + len(x))
    noise_scale = math.sqrt(2 * step_size * temperature)
    for step in range(steps):
        x = torch.add(x, score(x), alpha=step_size)
        if noise_scale:
            (noise,) = random_normal(
                seed,
                "langevin",
                chains,
                x.shape[1:],
                draws=range(step, step + 1),
                dtype=x.dtype,
                device=x.device,
            )
            x = x.add_(noise, alpha=noise_scale)
    return x


class _Level(NamedTuple):
    """`repeats` times x ← a x + b D(x, t) + c z, then x ← scale · x."""

    t: float
    a: float
    b: float
    c: float
    repeats: int
    scale: float


class _Walk(Sampler):
    def calls(self, plan: Sequence[_Level]) -> int:
        """Return the sum of the repeats."""
        return sum(level.repeats for level in plan)

    def states(
        self, plan: Sequence[_Level], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each entry of the plan."""
        for t, a, b, c, repeats, scale in plan:
            for _ in range(repeats):
                x = (a * x).add_(denoise(x, t), alpha=b)
                if c:
                    x.add_(draw(), alpha=c)
            if scale != 1.0:
                x.mul_(scale)
            yield x


@SAMPLERS.register("annealed_langevin")
@dataclass(frozen=True)
class AnnealedLangevin(_Walk, GridSampler):
    """Annealed Langevin dynamics: T steps at each noise level, from the largest to the smallest.

        y ← y + e s(y, r) + sqrt(2 e) z,      e = step_size · r²,      y = x / alpha, r = sigma / alpha

    and at the end one denoising step, the mean D at the smallest level. It is NCSN's for alpha = 1,
    with step_size = ε / sigma_1² in its terms; for other processes it walks in y.
    NFE = levels · steps_per_level + 1.

    What it draws is wider than the data: at a level below the data's own spread the steps are too small
    to forget the level before. With the defaults and the exact score of N(0, 1), sigma from 50 to 0.01,
    the standard deviation comes out as 1.174 with the 29 levels of NCSNv2's rule in 64 dimensions,
    1.121 with 50 levels, 1.083 with the 109 of 784 dimensions and 1.068 with the 219 of 3,072. Four times
    the steps, T = 20, leave 1.093, 1.060, 1.035 and 1.024 of them. At the same cost step_size = 0.5
    leaves 1.083 and 1.020 (64 and 784 dimensions), but noise 15 % above what each level was trained on.

    Song and Ermon 2019, arXiv:1907.05600, algorithm 1; the step size of Song and Ermon 2020,
    arXiv:2006.09011, technique 4; the last step of Jolicoeur-Martineau et al. 2020, arXiv:2009.05475.

    Args:
        steps: number of noise levels; None is all of a chain's own.
        grid: how the levels are spaced, see `time_grid`.
        steps_per_level: T; the default 5 widens a unit Gaussian by 17 % with 29 levels, 7 % with 219.
        step_size: e / r², the step in units of each level's own variance; None is NCSNv2's choice for
            these levels and T, see `langevin_step_size`.
    """

    steps: Steps | None = None  # type: ignore[assignment]
    grid: Grid = "log_snr"
    steps_per_level: Annotated[int, Bounds(ge=1, le=1000)] = 5
    step_size: Annotated[float, Bounds(gt=0, lt=1)] | None = None

    def plan(self, process: Process) -> Sequence[_Level]:
        """Return the levels, in x at constant alpha, and the last denoising step."""
        steps, grid = self.steps, self.grid
        if steps is None:
            if not isinstance(process, Chain):
                raise ValueError(
                    f"annealed_langevin needs steps on {process.kind}, which has no levels of its "
                    "own"
                )
            steps, grid = process.levels, "uniform"
        levels = kernel_steps(process, steps, grid)
        e = self.step_size
        if e is None:
            first, last = levels[0].r_t, levels[-1].r_t
            gamma = (first / last) ** (1 / max(steps - 1, 1))
            e = langevin_step_size(1.0, gamma, self.steps_per_level)
        plan = [
            _Level(
                level.t,
                1 - e,
                e * level.alpha_t,
                level.sigma_t * math.sqrt(2 * e),
                self.steps_per_level,
                after.alpha_t / level.alpha_t,
            )
            for level, after in zip(levels, [*levels[1:], levels[-1]], strict=True)
        ]
        return [*plan, _Level(levels[-1].t, 0.0, 1.0, 0.0, 1, 1.0)]


@SAMPLERS.register("langevin")
@dataclass(frozen=True)
class Langevin(_Walk):
    """Plain Langevin dynamics at one noise level, with a last denoising step. NFE = steps + 1.

        y ← y + e s(y, r) + sqrt(2 e) z,      y = x / alpha,  r = sigma / alpha

    What came before many noise levels, for models of one level and to see where it fails: it does
    not find a mode's weight, and far from the data it follows a score that was never learned.

    Song and Ermon 2019, arXiv:1907.05600, section 2.2.

    Args:
        steps: number of steps.
        step_size: e, in units of the data squared; below 2 r², beyond which the steps diverge.
        ratio: r, the noise level at which the score is taken, or the process's nearest; None is its
            smallest.
        start_std: the chains start from N(0, start_std² I); None is the prior's own width.
    """

    steps: Steps
    step_size: Positive = 1e-4
    ratio: Positive | None = None
    start_std: Positive | None = None

    def plan(self, process: Process) -> Sequence[_Level]:
        """Return the way to where the chains start, the steps, and the last denoising step."""
        t = process.t_min
        if self.ratio is not None:
            found = process.t_of_ratio(torch.tensor(self.ratio, dtype=torch.float64))
            t = min(max(float(found), process.t_min), 1.0)
        ends = torch.tensor([t, 1.0], dtype=torch.float64)
        alpha, alpha_prior = process.alpha(ends).tolist()
        r = float(process.ratio(ends)[0])
        e = self.step_size
        if e >= 2 * r**2:
            raise ValueError(
                f"langevin at r = {r:g} diverges unless step_size < {2 * r**2:g}, got {e:g}"
            )
        width = alpha_prior if self.start_std is None else process.prior_std() / self.start_std
        step = _Level(t, 1 - e / r**2, e / r**2 * alpha, alpha * math.sqrt(2 * e), 1, 1.0)
        start = _Level(t, 1.0, 0.0, 0.0, 0, alpha / width)
        return [start, *[step] * self.steps, _Level(t, 0.0, 1.0, 0.0, 1, 1.0)]
