"""Variance exploding: noise is added and the data stay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.processes.base import PROCESSES
from scoremodel.processes.sde import SDE, FirstTime

__all__ = ["VE"]


@PROCESSES.register("ve")
@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: alpha_t = 1, sigma_t = sigma_min (sigma_max / sigma_min)^t.

    f = 0 and g(t) = sigma_t sqrt(2 ln(sigma_max / sigma_min)); the limit of NCSN's ladder of noise
    levels (Song and Ermon 2019, arXiv:1907.05600). With this convention sigma_0 = sigma_min, so the
    SDE started from the data at t = 0 has variance sigma_t² − sigma_min².

    Args:
        sigma_min: smallest noise level, in units of the data.
        sigma_max: largest noise level; about the largest distance between two data points.
    """

    sigma_min: Positive = 0.02
    sigma_max: Annotated[float, Bounds(gt=0, le=1e12, above="sigma_min")] = 100.0
    t_min: FirstTime = field(default=1e-5, kw_only=True)

    prior_keeps_mean: ClassVar[bool] = True

    @property
    def _log_range(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self._log_range * t).exp()

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self._log_range)

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return t = ln(ratio / sigma_min) / ln(sigma_max / sigma_min)."""
        return (ratio / self.sigma_min).log() / self._log_range
