"""Where a sampler's steps begin and end, and what the process's kernel is there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, get_args

import torch

from scoremodel.bounds import Bounds
from scoremodel.processes.base import Process
from scoremodel.processes.chain import Chain

__all__ = ["GRIDS", "Grid", "GridName", "Kernel", "kernel_steps", "time_grid"]

GridName = Literal["uniform", "log_snr", "edm"]
GRIDS: tuple[str, ...] = get_args(GridName)
Grid = GridName | tuple[Annotated[float, Bounds(gt=0, le=1)], ...]
"""How times are spaced: by one of these rules, or the times themselves."""

EDM_RHO = 7.0


def time_grid(process: Process, points: int, grid: Grid) -> list[float]:
    """Return `points` times that fall from 1 to process.t_min.

    With r = sigma_t / alpha_t and i from 0 to points − 1:

        uniform  t_i equally spaced
        log_snr  ln r_i equally spaced
        edm      r_i^(1/7) equally spaced (Karras et al. 2022, arXiv:2206.00364, eq. 5)

    A chain has its levels only: of a named grid the nearest ones are taken, none twice.

    Args:
        process: the process to be reversed.
        points: number of times, at least 1.
        grid: one of the names above, or the times themselves, which begin with 1.

    Returns:
        The times as floats, the first exactly 1 and (if points > 1 and the grid is a name) the last
        exactly t_min.

    Raises:
        ValueError: if the grid is unknown, points < 1, times given are not that many or do not fall
            from 1 to more than 0, or a chain has too few levels.
    """
    if points < 1:
        raise ValueError(f"a time grid needs at least 1 point, got {points}")
    if isinstance(grid, tuple):
        return _checked(process, points, grid)
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}, allowed: {', '.join(GRIDS)}")
    times = process.uniform_grid(points)
    if grid != "uniform":
        first, last = process.ratio(torch.tensor([1.0, process.t_min], dtype=torch.float64))
        u = torch.linspace(0, 1, points, dtype=torch.float64)
        if grid == "log_snr":
            ratio = (first.log() + u * (last / first).log()).exp()
        else:
            power = 1 / EDM_RHO
            ratio = (first**power + u * (last**power - first**power)) ** EDM_RHO
        times = process.t_of_ratio(ratio)
        if isinstance(process, Chain):
            times = process.distinct(times)
    falling: list[float] = times.tolist()
    falling[0] = 1.0
    if points > 1:
        falling[-1] = process.t_min
    return falling


def _checked(process: Process, points: int, times: Sequence[float]) -> list[float]:
    falls = all(t > s for t, s in pairwise(times))
    if len(times) != points or times[0] != 1 or times[-1] <= 0 or not falls:
        raise ValueError(
            f"a grid of {points} times must fall from 1 to more than 0, got {len(times)} times {times}"
        )
    if isinstance(process, Chain):
        index = process.index(torch.tensor(times, dtype=torch.float64))
        if bool((index.diff() >= 0).any()):
            raise ValueError(f"of the times {times} two are the same level of {process.kind}")
    return list(times)


class Kernel(NamedTuple):
    """A step from t to s < t in the terms of the process's kernel."""

    t: float
    alpha_t: float
    sigma_t: float
    s: float
    alpha_s: float
    sigma_s: float

    @property
    def r_t(self) -> float:
        """The noise ratio sigma_t / alpha_t."""
        return self.sigma_t / self.alpha_t

    @property
    def r_s(self) -> float:
        """The noise ratio sigma_s / alpha_s."""
        return self.sigma_s / self.alpha_s

    @property
    def transition(self) -> tuple[float, float]:
        """(a, v) of the forward transition p(x_t | x_s) = N(a x_s, v I)."""
        a = self.alpha_t / self.alpha_s
        return a, self.sigma_t**2 - (a * self.sigma_s) ** 2


def kernel_steps(
    process: Process, steps: int, grid: Grid, denoise_last: bool = True
) -> list[Kernel]:
    """Return the steps over the grid, their coefficients as floats.

    With `denoise_last` the last of them goes from t_min to alpha = 1, sigma = 0.
    """
    times = time_grid(process, steps if denoise_last else steps + 1, grid)
    t = torch.tensor(times, dtype=torch.float64)
    nodes = list(zip(times, process.alpha(t).tolist(), process.sigma(t).tolist(), strict=True))
    if denoise_last:
        nodes.append((0.0, 1.0, 0.0))
    return [Kernel(*here, *there) for here, there in pairwise(nodes)]
