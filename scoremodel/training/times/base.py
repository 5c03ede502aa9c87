"""What every distribution of training times is, and the kinds of them by name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from scoremodel.bounds import check_bounds
from scoremodel.processes.base import Process
from scoremodel.registry import Registry

__all__ = ["TIMES", "Times", "log_ratios", "stratified_quantiles"]


class Times(ABC):
    """A distribution of training times."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        check_bounds(self)

    @abstractmethod
    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return times, and the factors by which their losses must be weighted.

        Args:
            count: number of times.
            process: says which times there are.
            generator: source of randomness; its device is the results'.

        Returns:
            Times in [t_min, 1] with shape (count,), and factors with shape (count,).

        Raises:
            ValueError: if the process does not define these times.
        """


TIMES: Registry[type[Times]] = Registry("scoremodel.training.times", "times")


def stratified_quantiles(count: int, generator: torch.Generator) -> Tensor:
    """Return u_i = (u_0 + i / count) mod 1 with one u_0 ~ U(0, 1), with shape (count,)."""
    start = torch.rand((), generator=generator, device=generator.device)
    return (start + torch.arange(count, device=generator.device) / count) % 1


def log_ratios(process: Process) -> tuple[float, float]:
    """Return ln r at t_min and at 1."""
    ends = torch.tensor([process.t_min, 1.0], dtype=torch.float64)
    low, high = process.ratio(ends).tolist()
    return math.log(low), math.log(high)
