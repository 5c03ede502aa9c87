"""DDPM's Markov chain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.processes.base import PROCESSES
from scoremodel.processes.chain import Chain, Levels

__all__ = ["DDPM"]


@PROCESSES.register("ddpm")
@dataclass(frozen=True)
class DDPM(Chain):
    """DDPM's chain with linear β: x_i = sqrt(1 − β_i) x_{i−1} + sqrt(β_i) z.

    Ho, Jain and Abbeel 2020, arXiv:2006.11239; with β_i = β̄((i − 1) / (N − 1)) / N and N → ∞ it is
    VP with that β̄ (their constants are VP's 0.1 and 20, divided by N = 1000).

    Args:
        beta_first: β_1.
        beta_last: β_N.
        levels: N.
    """

    beta_first: Positive = 1e-4
    beta_last: Annotated[float, Bounds(gt=0, lt=1, above="beta_first")] = 0.02
    levels: Levels = 1000

    def beta(self) -> Tensor:
        """Return β_1 … β_N with shape (N,), float64."""
        return torch.linspace(self.beta_first, self.beta_last, self.levels, dtype=torch.float64)

    @cached_property
    def _kernel(self) -> tuple[Tensor, Tensor]:
        log_squared = torch.log1p(-self.beta()).cumsum(0)
        return (0.5 * log_squared).exp(), (-torch.expm1(log_squared)).sqrt()

    def prior_std(self) -> float:
        return 1.0
