"""One noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremodel.bounds import Positive
from scoremodel.processes.base import Process
from scoremodel.training.times.base import TIMES, Times

__all__ = ["Single"]


@TIMES.register("single")
@dataclass(frozen=True)
class Single(Times):
    """One noise level, as before there were many: the time at which sigma_t / alpha_t is `ratio`.

    Vincent 2011; of a chain, the nearest level.

    Args:
        ratio: noise ratio r, cut to the process's own.
    """

    ratio: Positive

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the one time, and ones."""
        ratio = torch.full((count,), self.ratio, device=generator.device)
        t = process.t_of_ratio(ratio).clamp(process.t_min, 1)
        return t, torch.ones_like(t)
