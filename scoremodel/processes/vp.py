"""Variance preserving: the data shrink as noise is added. And sub-VP, with less of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.processes.base import PROCESSES
from scoremodel.processes.sde import SDE

__all__ = ["VP", "SubVP"]


@PROCESSES.register("vp")
@dataclass(frozen=True)
class VP(SDE):
    """Variance preserving: alpha_t = exp(−½ ∫β), sigma_t = sqrt(1 − alpha_t²), ∫β = ½ t²(β1−β0) + tβ0.

    f = −½ β(t) and g = sqrt(β(t)) with β(t) = β0 + t (β1 − β0); the limit of DDPM's chain
    (Ho, Jain, Abbeel 2020, arXiv:2006.11239).

    Args:
        beta_min: β0, the rate of noising at t = 0.
        beta_max: β1, the rate of noising at t = 1.
    """

    beta_min: Positive = 0.1
    beta_max: Annotated[float, Bounds(gt=0, le=1e12, above="beta_min")] = 20.0

    def beta(self, t: Tensor) -> Tensor:
        """Return β(t) = β0 + t (β1 − β0)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral_of_beta(self, t: Tensor) -> Tensor:
        """Return ∫_0^t β(s) ds = ½ t² (β1 − β0) + t β0."""
        return 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min

    def _t_of_integral(self, integral: Tensor) -> Tensor:
        # The positive root of ½(β1−β0) t² + β0 t − integral, in the form that does not cancel.
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2 * slope * integral).sqrt()
        return 2 * integral / (root + self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return (-0.5 * self.integral_of_beta(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        # expm1 keeps the digits that 1 − alpha² loses near t = 0.
        return (-torch.expm1(-self.integral_of_beta(t))).sqrt()

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def g(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with ∫_0^t β ds = ln(1 + ratio²), the root of a quadratic."""
        return self._t_of_integral(torch.log1p(ratio**2))

    def prior_std(self) -> float:
        """Return 1, to which sigma_1 is close."""
        return 1.0


@PROCESSES.register("subvp")
@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: alpha_t as VP, sigma_t = 1 − alpha_t², with less noise than VP at every t < 1.

    f = −½ β(t) and g = sqrt(β(t) (1 − exp(−2 ∫β))) (Song et al. 2021, arXiv:2011.13456, eq. 29).
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral_of_beta(t))

    def g(self, t: Tensor) -> Tensor:
        return (-self.beta(t) * torch.expm1(-2 * self.integral_of_beta(t))).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with ∫_0^t β ds = 2 asinh(ratio / 2)."""
        # ratio = (1 − a²)/a, so a = (sqrt(ratio² + 4) − ratio)/2 and asinh(ratio/2) = −ln a.
        return self._t_of_integral(2 * torch.asinh(ratio / 2))
