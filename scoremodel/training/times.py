"""At which times, that is noise levels, a denoiser is trained.

All but `Uniform` and `Single` are stratified: from u_i = (u_0 + i / count) mod 1 with one
u_0 ~ U(0, 1), so that every batch covers all noise levels evenly, which takes the times' own variance
out of its loss. Each u_i is uniform by itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoremodel.processes.sde import SDE, Process

__all__ = ["TIMES", "Importance", "LogNormal", "Single", "Stratified", "Times", "Uniform"]


class Times(ABC):
    """A distribution of training times."""

    kind: ClassVar[str]

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


def _stratified(count: int, generator: torch.Generator) -> Tensor:
    start = torch.rand((), generator=generator, device=generator.device)
    return (start + torch.arange(count, device=generator.device) / count) % 1


@dataclass(frozen=True)
class Uniform(Times):
    """Independent times, t ~ U(t_min, 1) for an SDE, every level equally likely for a chain."""

    kind: ClassVar[str] = "uniform"

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return independent uniform times, and ones."""
        t = process.times(torch.rand(count, generator=generator, device=generator.device))
        return t, torch.ones_like(t)


@dataclass(frozen=True)
class Stratified(Times):
    """Uniform times that cover [t_min, 1], or the levels of a chain, evenly."""

    kind: ClassVar[str] = "stratified"

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return stratified uniform times, and ones."""
        t = process.times(_stratified(count, generator))
        return t, torch.ones_like(t)


@dataclass(frozen=True)
class LogNormal(Times):
    """EDM's times: ln r ~ N(mean, std²) for the noise ratio r = sigma_t / alpha_t.

    Ratios beyond the process's own are cut to them; a chain takes its nearest level. Nothing is
    weighted: more training at these noise levels is what is wanted.

    Karras et al. 2022, arXiv:2206.00364.

    Args:
        mean: mean of ln r.
        std: standard deviation of ln r.

    Raises:
        ValueError: if std is not positive.
    """

    mean: float = -1.2
    std: float = 1.2

    kind: ClassVar[str] = "log_normal"

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"log_normal needs std > 0, got {self.std}")

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return times whose noise ratios are log-normal, and ones."""
        low, high = _log_ratios(process)
        z = torch.special.ndtri(_stratified(count, generator))
        t = process.t_of_ratio((self.mean + self.std * z).clamp(low, high).exp())
        t = t.clamp(process.t_min, 1)
        return t, torch.ones_like(t)


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

    kind: ClassVar[str] = "importance"

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return times with log-uniform noise ratio, and 1 / ((1 − t_min) p(t))."""
        if not isinstance(process, SDE):
            raise ValueError(f"times 'importance' need g(t), which {process.kind} has not")
        low, high = _log_ratios(process)
        u = _stratified(count, generator)
        t = process.t_of_ratio((low + u * (high - low)).exp()).clamp(process.t_min, 1)
        density = (process.g(t) / process.sigma(t)) ** 2 / (2 * (high - low))
        return t, 1 / ((1 - process.t_min) * density)


@dataclass(frozen=True)
class Single(Times):
    """One noise level, as before there were many: the time at which sigma_t / alpha_t is `ratio`.

    Vincent 2011; of a chain, the nearest level.

    Args:
        ratio: noise ratio r, cut to the process's own.

    Raises:
        ValueError: if it is not positive.
    """

    ratio: float

    kind: ClassVar[str] = "single"

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise ValueError(f"single needs ratio > 0, got {self.ratio}")

    def draw(
        self, count: int, process: Process, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the one time, and ones."""
        ratio = torch.full((count,), self.ratio, device=generator.device)
        t = process.t_of_ratio(ratio).clamp(process.t_min, 1)
        return t, torch.ones_like(t)


def _log_ratios(process: Process) -> tuple[float, float]:
    """Return ln r at t_min and at 1."""
    ends = torch.tensor([process.t_min, 1.0], dtype=torch.float64)
    low, high = process.ratio(ends).tolist()
    return math.log(low), math.log(high)


TIMES: dict[str, type[Times]] = {
    cls.kind: cls for cls in (Uniform, Stratified, LogNormal, Importance, Single)
}
"""The distributions of times by the name that configurations use."""
