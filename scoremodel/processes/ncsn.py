"""NCSN's ladder of noise levels, and the rules by which NCSNv2 chooses it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.processes.base import PROCESSES
from scoremodel.processes.chain import Chain, Levels

__all__ = ["NCSN", "langevin_step_size", "largest_distance", "ncsnv2_levels"]


@PROCESSES.register("ncsn", from_data_parameters=("sigma_max", "levels"))
@dataclass(frozen=True)
class NCSN(Chain):
    """NCSN's ladder: alpha_i = 1, sigma_i = sigma_min (sigma_max / sigma_min)^((i − 1) / (N − 1)).

    Song and Ermon 2019, arXiv:1907.05600; the limit N → ∞ is VE.

    Args:
        sigma_min: sigma_1, the smallest noise level, in units of the data.
        sigma_max: sigma_N, the largest.
        levels: N.
    """

    sigma_min: Positive = 0.02
    sigma_max: Annotated[float, Bounds(gt=0, le=1e12, above="sigma_min")] = 100.0
    levels: Levels = 232

    prior_keeps_mean: ClassVar[bool] = True

    @cached_property
    def _kernel(self) -> tuple[Tensor, Tensor]:
        sigma = torch.from_numpy(np.geomspace(self.sigma_min, self.sigma_max, self.levels))
        return torch.ones_like(sigma), sigma

    @classmethod
    def from_data(
        cls,
        x: Tensor,
        sigma_min: float = 0.02,
        sigma_max: float | None = None,
        levels: int | None = None,
    ) -> NCSN:
        """Return the ladder that NCSNv2's rules give for some data.

        sigma_max, unless given, is the largest distance between two data points, and the ratio of
        neighbouring levels is such that they overlap in D dimensions (`ncsnv2_levels`).

        Song and Ermon 2020, arXiv:2006.09011, techniques 1 and 2.

        Args:
            x: data with shape (N, *).
            sigma_min: the smallest level.
            sigma_max: the largest level, None for the rule's.
            levels: N, None for the rule's.

        Returns:
            The ladder.

        Raises:
            ValueError: if the largest distance is not greater than sigma_min.
        """
        sigma_max = sigma_max or largest_distance(x)
        levels = levels or ncsnv2_levels(sigma_min, sigma_max, x[0].numel())
        return cls(sigma_min, sigma_max, levels)


def largest_distance(x: Tensor, chunk: int = 1024) -> float:
    """Return the largest Euclidean distance between two of the data points x with shape (N, *)."""
    flat = x.flatten(1).float()
    return max(float(torch.cdist(part, flat).max()) for part in torch.split(flat, chunk))


def ncsnv2_levels(sigma_min: float, sigma_max: float, dimension: int) -> int:
    """Return the number N of geometric levels whose neighbours overlap as NCSNv2 asks, at least 2.

    The ratio γ of neighbours solves Φ(√(2D)(γ − 1) + 3γ) − Φ(√(2D)(γ − 1) − 3γ) = ½ for data of D
    dimensions, and sigma_min γ^(N − 1) ≈ sigma_max. Song and Ermon 2020, arXiv:2006.09011, technique 2.
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
    """Return ε of annealed Langevin at the smallest level, so that each ends with the next one's variance.

    With q = (1 − ε / sigma_min²)², the ratio γ of neighbouring levels and T steps at each, the ratio
    of the variance reached to the level's own is

        q^T (γ² − v) + v,        v = 2 ε / (sigma_min² (1 − q)),

    and ε in (0, sigma_min²) makes it closest to 1. Song and Ermon 2020, arXiv:2006.09011,
    proposition 3, technique 4.
    """
    epsilon = sigma_min**2 * np.geomspace(1e-6, 0.999, 4_000)
    q = (1 - epsilon / sigma_min**2) ** 2
    v = 2 * epsilon / (sigma_min**2 * (1 - q))
    reached = q**steps_per_level * (gamma**2 - v) + v
    return float(epsilon[np.abs(reached - 1).argmin()])
