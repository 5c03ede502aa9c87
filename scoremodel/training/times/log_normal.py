"""Times at the noise levels that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from scoremodel.bounds import Bounds
from scoremodel.processes.base import Process
from scoremodel.training.times.base import TIMES, Times, log_ratios, stratified_quantiles

__all__ = ["LogNormal"]


@TIMES.register("log_normal")
@dataclass(frozen=True)
class LogNormal(Times):
    """EDM's times: ln r ~ N(mean, std²) for the noise ratio r = sigma_t / alpha_t.

    Ratios beyond the process's own are cut to them; a chain takes its nearest level. Nothing is
    weighted: more training at these noise levels is what is wanted.

    Karras et al. 2022, arXiv:2206.00364.

    Args:
        mean: mean of ln r.
        std: standard deviation of ln r.
    """

    mean: Annotated[float, Bounds(ge=-100, le=100)] = -1.2
    std: Annotated[float, Bounds(ge=1e-6, le=100)] = 1.2

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return times whose noise ratios are log-normal, and ones."""
        low, high = log_ratios(process)
        z = torch.special.ndtri(stratified_quantiles(count, generator))
        t = process.t_of_ratio((self.mean + self.std * z).clamp(low, high).exp())
        t = t.clamp(process.t_min, 1)
        return t, torch.ones_like(t)
