"""Discrete chains: NCSN's ladder of noise levels and DDPM's Markov chain.

Level i = 1 … N stands at time t = i / N and has the kernel N(alpha_i x_0, sigma_i² I):

    NCSN    x_i = x_{i−1} + sqrt(sigma_i² − sigma_{i−1}²) z          alpha_i = 1
    DDPM    x_i = sqrt(1 − β_i) x_{i−1} + sqrt(β_i) z                alpha_i² = Π_j (1 − β_j)

As N grows, NCSN's chain becomes the VE SDE and DDPM's the VP SDE (Song et al. 2021,
arXiv:2011.13456). Times are carried as t = i / N and rounded to the nearest level: truncation would
miss every other level of some ladders.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from scoremodel.processes.sde import SDES, Process, check_times

__all__ = [
    "CHAINS",
    "DDPM",
    "NCSN",
    "Chain",
    "langevin_step_size",
    "largest_distance",
    "ncsnv2_levels",
    "process_from_config",
]


class Chain(Process):
    """A forward process with N levels, known at t = 1/N, 2/N … 1."""

    levels: int

    @cached_property
    @abstractmethod
    def _kernel(self) -> tuple[Tensor, Tensor]:
        """alpha_i and sigma_i for i = 1 … N, float64."""

    @property
    def t_min(self) -> float:
        """The time 1 / N of the first level."""
        return 1 / self.levels

    def index(self, t: Tensor) -> Tensor:
        """Return the level number 1 … N nearest to time t.

        Args:
            t: times in [0, 1] with any shape.

        Returns:
            Level numbers (int64) with the shape of t.

        Raises:
            ValueError: if a time is outside [0, 1].
        """
        check_times(t)
        return (t * self.levels).round().long().clamp(1, self.levels)

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_i of the level nearest to t."""
        return self._kernel[0].to(t)[self.index(t) - 1]

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_i of the level nearest to t."""
        return self._kernel[1].to(t)[self.index(t) - 1]

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time of the level whose sigma / alpha is nearest to `ratio` in the logarithm."""
        ladder = (self._kernel[1] / self._kernel[0]).log().to(ratio)
        nearest = (ladder - ratio[..., None].log()).abs().argmin(-1)
        return (nearest + 1).to(ratio) / self.levels

    def times(self, u: Tensor) -> Tensor:
        """Return the time i / N of level i = ⌊u N⌋ + 1."""
        return ((u * self.levels).floor().clamp(max=self.levels - 1) + 1) / self.levels

    def distinct(self, t: Tensor) -> Tensor:
        """Return the times of the levels nearest to the times t, no level twice.

        Where the levels are too sparse for that the next free one above is taken, from the lowest
        time up.

        Args:
            t: falling times with shape (M,), M <= N.

        Returns:
            Strictly falling times with shape (M,).
        """
        index = self.index(t)
        lowest = torch.arange(len(t)).flip(0)
        # index_k − lowest_k must not fall as k falls: the running maximum from the end.
        free = (index - lowest).flip(0).cummax(0).values.flip(0) + lowest
        highest = self.levels - torch.arange(len(t))
        return torch.minimum(free, highest).to(t) / self.levels

    def grid(self, points: int) -> Tensor:
        """Return levels' times, equally spaced up to rounding, from 1 to 1 / N.

        Args:
            points: how many, at most N.

        Returns:
            Falling times (float64) with shape (points,).

        Raises:
            ValueError: if the chain has fewer levels than that.
        """
        if points > self.levels:
            raise ValueError(
                f"{self.kind} has {self.levels} levels, so a grid has at most {self.levels} times, "
                f"got {points}"
            )
        index = torch.linspace(self.levels, 1, points, dtype=torch.float64).round()
        return index / self.levels


@dataclass(frozen=True)
class NCSN(Chain):
    """NCSN's ladder: alpha_i = 1, sigma_i = sigma_min (sigma_max / sigma_min)^((i − 1) / (N − 1)).

    Song and Ermon 2019, arXiv:1907.05600; the limit N → ∞ is VE.

    Args:
        sigma_min: sigma_1, the smallest noise level, in units of the data.
        sigma_max: sigma_N, the largest.
        levels: N.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max, or levels < 2.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    levels: int = 232

    kind: ClassVar[str] = "ncsn"
    prior_keeps_mean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max and self.levels >= 2):
            raise ValueError(
                f"ncsn needs 0 < sigma_min < sigma_max and levels >= 2, got sigma_min="
                f"{self.sigma_min}, sigma_max={self.sigma_max}, levels={self.levels}"
            )

    @cached_property
    def _kernel(self) -> tuple[Tensor, Tensor]:
        sigma = torch.from_numpy(np.geomspace(self.sigma_min, self.sigma_max, self.levels))
        return torch.ones_like(sigma), sigma

    @classmethod
    def from_data(cls, x: Tensor, sigma_min: float = 0.02, sigma_max: float | None = None) -> NCSN:
        """Return the ladder that NCSNv2's rules give for some data.

        sigma_max is the largest distance between two data points, and the ratio of neighbouring
        levels is such that they overlap in D dimensions (`ncsnv2_levels`).

        Song and Ermon 2020, arXiv:2006.09011, techniques 1 and 2.

        Args:
            x: data with shape (N, *).
            sigma_min: the smallest level.
            sigma_max: the largest level, None for the rule's.

        Returns:
            The ladder.

        Raises:
            ValueError: if the largest distance is not greater than sigma_min.
        """
        sigma_max = sigma_max or largest_distance(x)
        return cls(sigma_min, sigma_max, ncsnv2_levels(sigma_min, sigma_max, x[0].numel()))


@dataclass(frozen=True)
class DDPM(Chain):
    """DDPM's chain with linear β: x_i = sqrt(1 − β_i) x_{i−1} + sqrt(β_i) z.

    Ho, Jain and Abbeel 2020, arXiv:2006.11239; with β_i = β̄((i − 1) / (N − 1)) / N and N → ∞ it is
    VP with that β̄ (their constants are VP's 0.1 and 20, divided by N = 1000).

    Args:
        beta_first: β_1.
        beta_last: β_N.
        levels: N.

    Raises:
        ValueError: if not 0 < beta_first < beta_last < 1, or levels < 2.
    """

    beta_first: float = 1e-4
    beta_last: float = 0.02
    levels: int = 1000

    kind: ClassVar[str] = "ddpm"
    prior_keeps_mean: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0 < self.beta_first < self.beta_last < 1 and self.levels >= 2):
            raise ValueError(
                f"ddpm needs 0 < beta_first < beta_last < 1 and levels >= 2, got beta_first="
                f"{self.beta_first}, beta_last={self.beta_last}, levels={self.levels}"
            )

    def beta(self) -> Tensor:
        """Return β_1 … β_N with shape (N,), float64."""
        return torch.linspace(self.beta_first, self.beta_last, self.levels, dtype=torch.float64)

    @cached_property
    def _kernel(self) -> tuple[Tensor, Tensor]:
        log_squared = torch.log1p(-self.beta()).cumsum(0)
        return (0.5 * log_squared).exp(), (-torch.expm1(log_squared)).sqrt()

    def prior_std(self) -> float:
        return 1.0


def largest_distance(x: Tensor, chunk: int = 1024) -> float:
    """Return the largest Euclidean distance between two of the data points x with shape (N, *)."""
    flat = x.flatten(1).float()
    return max(float(torch.cdist(part, flat).max()) for part in torch.split(flat, chunk))


def ncsnv2_levels(sigma_min: float, sigma_max: float, dimension: int) -> int:
    """Return the number of geometric levels whose neighbours overlap as NCSNv2 asks.

    The ratio γ of neighbours solves Φ(√(2D)(γ − 1) + 3γ) − Φ(√(2D)(γ − 1) − 3γ) = ½ for data of D
    dimensions. Song and Ermon 2020, arXiv:2006.09011, technique 2.

    Args:
        sigma_min: smallest level.
        sigma_max: largest level.
        dimension: D.

    Returns:
        N with sigma_min γ^(N − 1) ≈ sigma_max, at least 2.
    """
    low, high = 1.0, 4.0

    def overlap(gamma: float) -> float:
        a = math.sqrt(2 * dimension) * (gamma - 1)
        return 0.5 * (
            math.erf((a + 3 * gamma) / math.sqrt(2)) - math.erf((a - 3 * gamma) / math.sqrt(2))
        )

    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle) > 0.5 else (low, middle)
    return max(2, round(math.log(sigma_max / sigma_min) / math.log(low)) + 1)


def langevin_step_size(sigma_min: float, gamma: float, steps_per_level: int) -> float:
    """Return ε of annealed Langevin, so that each level ends with the next level's variance.

    With q = (1 − ε / sigma_min²)² the ratio of the variance reached to the level's own is

        q^T (γ² − v) + v,        v = 2 ε / (sigma_min² (1 − q)),

    and ε makes it closest to 1. Song and Ermon 2020, arXiv:2006.09011, proposition 3, technique 4.

    Args:
        sigma_min: smallest level.
        gamma: ratio of neighbouring levels.
        steps_per_level: T.

    Returns:
        The step size ε at the smallest level, in (0, sigma_min²).
    """
    epsilon = sigma_min**2 * np.geomspace(1e-6, 0.999, 4_000)
    q = (1 - epsilon / sigma_min**2) ** 2
    v = 2 * epsilon / (sigma_min**2 * (1 - q))
    reached = q**steps_per_level * (gamma**2 - v) + v
    return float(epsilon[np.abs(reached - 1).argmin()])


CHAINS: dict[str, type[Chain]] = {cls.kind: cls for cls in (NCSN, DDPM)}


def process_from_config(config: dict[str, Any]) -> Process:
    """Return the SDE or chain that `config` names.

    Args:
        config: "kind" (one of `SDES` or `CHAINS`) and that process's own parameters.

    Returns:
        The process.

    Raises:
        ValueError: if the kind is unknown, a parameter is out of range, or the noise ratio at t = 1
            is beyond single precision.
    """
    parameters = dict(config)
    kind = parameters.pop("kind", None)
    processes: dict[str, type[Process]] = {**SDES, **CHAINS}
    if kind not in processes:
        raise ValueError(f"unknown sde kind {kind!r}, allowed: {', '.join(processes)}")
    process = processes[kind](**parameters)
    largest = process.ratio(torch.ones(()))
    if not (largest**2).isfinite():
        raise ValueError(
            f"{process} leaves so little of the data at t = 1 that (sigma / alpha)² is not a number in "
            "single precision; allowed: parameters with sigma_1 / alpha_1 < 1e19"
        )
    return process
