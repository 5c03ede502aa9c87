"""VP with the cosine schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.processes.base import PROCESSES
from scoremodel.processes.sde import SDE

__all__ = ["CosineVP"]


@PROCESSES.register("vp_cosine")
@dataclass(frozen=True)
class CosineVP(SDE):
    """VP with the cosine schedule: alpha_t = cos(θ_t) / cos(θ_0), θ_t = ½π (t_end t + s) / (1 + s).

    sigma_t = sqrt(1 − alpha_t²). At t_end = 1 alpha would reach 0 and the noise ratio infinity.

    Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17.

    Args:
        offset: s, which keeps the first noise from being too small.
        t_end: where on the published schedule, in (0, 1), our t = 1 lies.
    """

    offset: Positive = 0.008
    t_end: Annotated[float, Bounds(gt=0, lt=1)] = 0.995

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (self.t_end * t + self.offset) / (1 + self.offset)

    def alpha(self, t: Tensor) -> Tensor:
        return self._angle(t).cos() / self._angle(torch.zeros_like(t)).cos()

    def sigma(self, t: Tensor) -> Tensor:
        # 1 − alpha² = sin(θ_t − θ_0) sin(θ_t + θ_0) / cos²(θ_0), which does not cancel near t = 0.
        here, start = self._angle(t), self._angle(torch.zeros_like(t))
        return ((here - start).sin() * (here + start).sin()).sqrt() / start.cos()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with cos(θ_t) = cos(θ_0) / sqrt(1 + ratio²)."""
        start = self._angle(torch.zeros_like(ratio))
        angle = (start.cos() / (1 + ratio**2).sqrt()).acos()
        return (angle * 2 / math.pi * (1 + self.offset) - self.offset) / self.t_end

    def prior_std(self) -> float:
        """Return 1, to which sigma_1 is close."""
        return 1.0
