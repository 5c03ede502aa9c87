"""Discrete chains: levels i = 1 … N at the times t = i / N.

Times are rounded to the nearest level: truncation would miss every other level of some ladders.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from scoremodel.bounds import Bounds
from scoremodel.processes.base import Process, check_times

__all__ = ["Chain", "Levels"]

Levels = Annotated[int, Bounds(ge=2, le=100_000)]


class Chain(Process):
    """A forward process with N levels, known at t = 1/N, 2/N … 1.

    Args:
        levels: N.
    """

    levels: Levels

    @cached_property
    @abstractmethod
    def _kernel(self) -> tuple[Tensor, Tensor]:
        """alpha_i and sigma_i for i = 1 … N, float64."""

    @cached_property
    def _placed(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]]:
        return {}

    def _tables(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return alpha, sigma and ln(sigma / alpha) of the levels in the place and type of `like`.

        They stay there: a copy at every call would have the host wait for a GPU.
        """
        where = like.device, like.dtype
        if where not in self._placed:
            alpha, sigma = self._kernel
            # Samplers may ask first, in inference mode, whose tensors training cannot use.
            with torch.inference_mode(False):
                self._placed[where] = tuple(
                    one.to(like) for one in (alpha, sigma, (sigma / alpha).log())
                )
        return self._placed[where]

    @property
    def t_min(self) -> float:
        """The time 1 / N of the first level."""
        return 1 / self.levels

    def index(self, t: Tensor) -> Tensor:
        """Return the level number 1 … N nearest to time t (int64)."""
        check_times(t)
        return (t * self.levels).round().long().clamp(1, self.levels)

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_i of the level nearest to t."""
        return self._tables(t)[0][self.index(t) - 1]

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_i of the level nearest to t."""
        return self._tables(t)[1][self.index(t) - 1]

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time of the level whose sigma / alpha is nearest to `ratio` in the logarithm."""
        ladder = self._tables(ratio)[2]
        nearest = (ladder - ratio[..., None].log()).abs().argmin(-1)
        return (nearest + 1).to(ratio) / self.levels

    def time_of_quantile(self, u: Tensor) -> Tensor:
        """Return the time i / N of level i = ⌊u N⌋ + 1."""
        return ((u * self.levels).floor().clamp(max=self.levels - 1) + 1) / self.levels

    def distinct(self, t: Tensor) -> Tensor:
        """Return the times of the levels nearest to the falling times t, no level twice.

        Where the levels are too sparse for that the next free one above is taken, from the lowest
        time up.
        """
        index = self.index(t)
        lowest = torch.arange(len(t)).flip(0)
        # index_k − lowest_k must not fall as k falls: the running maximum from the end.
        free = (index - lowest).flip(0).cummax(0).values.flip(0) + lowest
        highest = self.levels - torch.arange(len(t))
        return torch.minimum(free, highest).to(t) / self.levels

    def uniform_grid(self, points: int) -> Tensor:
        """Return levels' times, equally spaced up to rounding, from 1 to 1 / N."""
        if points > self.levels:
            raise ValueError(
                f"{self.kind} has {self.levels} levels, so a grid has at most {self.levels} times, "
                f"got {points}"
            )
        index = torch.linspace(self.levels, 1, points, dtype=torch.float64).round()
        return index / self.levels
