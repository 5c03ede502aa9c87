"""Every time, or every level of a chain, equally likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremodel.processes.base import Process
from scoremodel.training.times.base import TIMES, Times, stratified_quantiles

__all__ = ["Stratified", "Uniform"]


@TIMES.register("uniform")
@dataclass(frozen=True)
class Uniform(Times):
    """Independent times, t ~ U(t_min, 1) for an SDE, every level equally likely for a chain."""

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return independent uniform times, and ones."""
        t = process.time_of_quantile(
            torch.rand(count, generator=generator, device=generator.device)
        )
        return t, torch.ones_like(t)


@TIMES.register("stratified")
@dataclass(frozen=True)
class Stratified(Times):
    """Uniform times that cover [t_min, 1], or the levels of a chain, evenly."""

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return stratified uniform times, and ones."""
        t = process.time_of_quantile(stratified_quantiles(count, generator))
        return t, torch.ones_like(t)
