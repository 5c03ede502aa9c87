"""A process up to a time only, from which sampling may start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoremodel.processes.base import Process
from scoremodel.processes.chain import Chain
from scoremodel.processes.sde import SDE

__all__ = ["until"]


def until(process: Process, end: float) -> tuple[Process, float]:
    """Return the process on [0, end], its time running to 1 again, so that any sampler may reverse it.

    Args:
        process: the whole process.
        end: the time at which it ends, of a chain the nearest level's.

    Returns:
        The process, and its end as a time of the whole one: its t is this times t there.

    Raises:
        ValueError: if there is no time left between t_min and the end.
    """
    if end == 1:
        return process, 1.0
    if isinstance(process, Chain):
        levels = int(process.index(torch.tensor(end, dtype=torch.float64)))
        return _ChainUntil(process, levels), levels / process.levels
    assert isinstance(process, SDE)
    if not end > process.t_min:
        raise ValueError(
            f"t_init: {end:g} is not allowed, allowed: a number greater than the process's t_min "
            f"({process.t_min:g}) and at most 1"
        )
    return _SDEUntil(process, end, t_min=process.t_min / end), end


@dataclass(frozen=True)
class _SDEUntil(SDE):
    """dx = e f(e t) x dt + sqrt(e) g(e t) dw."""

    whole: SDE
    end: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.whole.kind)

    def alpha(self, t: Tensor) -> Tensor:
        return self.whole.alpha(self.end * t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.whole.sigma(self.end * t)

    def f(self, t: Tensor) -> Tensor:
        return self.end * self.whole.f(self.end * t)

    def g(self, t: Tensor) -> Tensor:
        return math.sqrt(self.end) * self.whole.g(self.end * t)

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        return self.whole.t_of_ratio(ratio) / self.end


@dataclass(frozen=True)
class _ChainUntil(Chain):
    """The first levels of a chain."""

    whole: Chain
    levels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.whole.kind)

    @cached_property
    def _kernel(self) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.whole._kernel
        return alpha[: self.levels], sigma[: self.levels]
