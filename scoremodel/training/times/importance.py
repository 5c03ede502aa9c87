"""Times for the likelihood weighting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremodel.processes.base import Process
from scoremodel.processes.sde import SDE
from scoremodel.training.times.base import TIMES, Times, log_ratios, stratified_quantiles

__all__ = ["Importance"]


@TIMES.register("importance")
@dataclass(frozen=True)
class Importance(Times):
    """Times with density p(t) ∝ g(t)² / sigma_t², and factors that undo it.

    For the likelihood weighting λ = g², under which the loss is g²/sigma² times a term of order one
    and uniform times spend themselves where g²/sigma² is small. Because

        g² / sigma_t² = d ln(sigma_t² / alpha_t²) / dt,

    these are the times at which the logarithm of the noise ratio is uniform; the factor
    1 / ((1 − t_min) p(t)) keeps the expected loss that of uniform times. For SDEs only.

    Song, Durkan, Murray and Ermon 2021, arXiv:2101.09258.
    """

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return times with log-uniform noise ratio, and 1 / ((1 − t_min) p(t))."""
        if not isinstance(process, SDE):
            raise ValueError(f"times 'importance' need g(t), which {process.kind} has not")
        low, high = log_ratios(process)
        u = stratified_quantiles(count, generator)
        t = process.t_of_ratio((low + u * (high - low)).exp()).clamp(process.t_min, 1)
        density = (process.g(t) / process.sigma(t)) ** 2 / (2 * (high - low))
        return t, 1 / ((1 - process.t_min) * density)
