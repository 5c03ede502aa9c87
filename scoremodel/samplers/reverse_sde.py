"""Samplers of the reverse-time SDE dx = [f x − g² ∇ log p_t] dt + g dw̄."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from scoremodel.samplers.base import Call, Draw, Sampler, time_grid
from scoremodel.sde import SDE

__all__ = ["EulerMaruyama"]


class _Linear(NamedTuple):
    """x ← a x + b D(x, t) + c z."""

    t: float
    a: float
    b: float
    c: float


class EulerMaruyama(Sampler):
    """Euler–Maruyama on the reverse SDE, from t to s = t − Δ.

        x_s = x_t − Δ (f x_t − g² s(x_t, t)) + g sqrt(Δ) z,        s = (alpha_t D − x_t) / sigma_t²

    The last step, to t_min, leaves the noise out. NFE = steps.

    Song et al. 2021, arXiv:2011.13456, appendix D.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
    """

    kind: ClassVar[str] = "euler_maruyama"

    def plan(self, sde: SDE) -> Sequence[_Linear]:
        """Return x_s = (1 − Δ f − Δ g²/sigma²) x + (Δ g² alpha/sigma²) D + g sqrt(Δ) z as floats."""
        times = time_grid(sde, self.steps + 1, self.grid)
        t = torch.tensor(times[:-1], dtype=torch.float64)
        delta = torch.tensor([a - b for a, b in pairwise(times)], dtype=torch.float64)
        pull = delta * (sde.g(t) / sde.sigma(t)) ** 2
        noise = sde.g(t) * delta.sqrt()
        noise[-1] = 0.0
        columns = (times[:-1], 1 - delta * sde.f(t) - pull, pull * sde.alpha(t), noise)
        rows = zip(*(torch.as_tensor(c).tolist() for c in columns), strict=True)
        return [_Linear(*row) for row in rows]

    def advance(self, step: _Linear, x: Tensor, denoise: Call, draw: Draw) -> Tensor:
        """Return a x + b D + c z."""
        x = (step.a * x).add_(denoise(x, step.t), alpha=step.b)
        return x.add_(draw(), alpha=step.c) if step.c else x
