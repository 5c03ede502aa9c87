"""Langevin dynamics: from any score by itself, and annealed over many noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from scoremodel.rng import generators, randn_rows
from scoremodel.samplers.base import Call, Draw, Grid, Sampler, kernel_steps
from scoremodel.sde import Process

__all__ = ["AnnealedLangevin", "langevin"]


def langevin(
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

    Raises:
        ValueError: if step_size or steps is not positive, or temperature is negative.
    """
    if step_size <= 0 or steps < 1 or temperature < 0:
        raise ValueError(
            f"langevin needs step_size > 0, steps >= 1 and temperature >= 0, got {step_size}, "
            f"{steps} and {temperature}"
        )
    streams = generators(seed, "langevin", range(start, start + len(x)))
    noise_scale = math.sqrt(2 * step_size * temperature)
    for _ in range(steps):
        x = torch.add(x, score(x), alpha=step_size)
        if noise_scale:
            noise = randn_rows(streams, x.shape[1:], x.dtype).to(x.device)
            x = x.add_(noise, alpha=noise_scale)
    return x


class _Level(NamedTuple):
    t: float
    alpha: float
    a: float
    b: float
    c: float
    repeats: int
    alpha_next: float


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """Annealed Langevin dynamics: T steps at each noise level, from the largest to the smallest.

        y ← y + e s(y, r) + sqrt(2 e) z,      e = epsilon · r² / r_min²,      y = x / alpha, r = sigma / alpha

    and at the end one denoising step, the mean D at the smallest level. It is NCSN's for alpha = 1;
    for other processes it walks in y. NFE = steps · steps_per_level + 1.

    Song and Ermon 2019, arXiv:1907.05600, algorithm 1, with the last step of arXiv:2006.09011.

    Args:
        steps: number of noise levels, all of a chain's for its own ladder.
        grid: how the levels are spaced, see `time_grid`.
        steps_per_level: T.
        step_size: epsilon / r_min², the step in units of each level's own variance.

    Raises:
        ValueError: if steps_per_level < 1 or step_size is not in (0, 1).
    """

    grid: Grid = "log_snr"
    steps_per_level: int = 5
    step_size: float = 0.1

    kind: ClassVar[str] = "annealed_langevin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps_per_level < 1 or not 0 < self.step_size < 1:
            raise ValueError(
                "annealed_langevin needs steps_per_level >= 1 and 0 < step_size < 1, got "
                f"{self.steps_per_level} and {self.step_size}"
            )

    def plan(self, process: Process) -> Sequence[_Level]:
        """Return the levels; in x the step is a x + b D + c z at constant alpha."""
        e = self.step_size
        levels = [
            _Level(
                step.t,
                step.alpha_t,
                1 - e,
                e * step.alpha_t,
                step.sigma_t * math.sqrt(2 * e),
                self.steps_per_level,
                step.alpha_s,
            )
            for step in kernel_steps(process, self.steps, self.grid)
        ]
        last = levels[-1]
        return [*levels, last._replace(a=0.0, b=1.0, c=0.0, repeats=1, alpha=1.0, alpha_next=1.0)]

    def states(
        self, plan: Sequence[_Level], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each level."""
        for number, level in enumerate(plan):
            final = number == len(plan) - 1
            for _ in range(level.repeats):
                x = (level.a * x).add_(denoise(x, level.t), alpha=level.b)
                if level.c:
                    x.add_(draw(), alpha=level.c)
            if not final and number < len(plan) - 2:
                x.mul_(level.alpha_next / level.alpha)
            yield x
