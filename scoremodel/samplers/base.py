"""What every sampler is: a plan, whose coefficients are floats, and a loop over it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from scoremodel.bounds import Steps, check_bounds
from scoremodel.processes.base import Process
from scoremodel.registry import Registry
from scoremodel.samplers.grid import Grid

__all__ = [
    "SAMPLERS",
    "Call",
    "Draw",
    "GridSampler",
    "Linear",
    "LinearSampler",
    "Sampler",
    "advance",
]

Call = Callable[[Tensor, float | Tensor], Tensor]
"""The denoiser: (x_t with shape (B, *), t) → E[x_0 | x_t], with one time for the whole batch as a
float, or a time for each with shape (B,)."""

Draw = Callable[[], Tensor]
"""Fresh standard normal noise with the shape (B, *) of the batch."""


class Sampler(ABC):
    """A way from the prior at t = 1 back to the data.

    A sampler is two functions: `plan` computes every step's coefficients as floats, once, and
    `states` is the loop itself, which yields x after each step. A new sampler writes these two.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kind = cls.__name__  # until it is registered

    def __post_init__(self) -> None:
        check_bounds(self)

    @abstractmethod
    def plan(self, process: Process) -> Sequence[Any]:
        """Return the steps, each with its coefficients as floats, in the order they are taken.

        Args:
            process: the process to be reversed.

        Returns:
            One entry for each step, as `states` wants it.

        Raises:
            ValueError: if the process does not define this sampler.
        """

    def call_times(self, plan: Sequence[Any]) -> list[float]:
        """Return the times at which a plan calls the model, so that it can prepare for them.

        By default each step's `t`, where it has one. A call at any other time works too, only slower.
        """
        return [step.t for step in plan if isinstance(getattr(step, "t", None), float)]

    def calls(self, plan: Sequence[Any]) -> int | None:
        """Return how many times a plan calls the model, by default once a step.

        Args:
            plan: what `plan` returned.

        Returns:
            The number of calls for each sample, None if it follows from the samples.
        """
        return len(plan)

    def growth(self, plan: Sequence[Any], process: Process) -> float:
        """Return by what factor a plan's steps amplify the prior's noise, around data at one point.

        Args:
            plan: what `plan` returned.
            process: the process that is reversed.

        Returns:
            The standard deviation before the last step over the prior's; above 1 the steps are too few.
            0 of a sampler that cannot say.
        """
        return 0.0

    @abstractmethod
    def states(self, plan: Sequence[Any], x: Tensor, denoise: Call, draw: Draw) -> Iterator[Tensor]:
        """Yield the state after each step of the plan.

        Args:
            plan: what `plan` returned.
            x: the prior's draw with shape (B, *).
            denoise: the model.
            draw: gives noise with shape (B, *).

        Yields:
            States with shape (B, *), each of which the next step may overwrite.
        """


SAMPLERS: Registry[type[Sampler]] = Registry("scoremodel.samplers", "sampler")


@dataclass(frozen=True)
class GridSampler(Sampler):
    """A sampler whose steps are those of a time grid.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.
    """

    steps: Steps
    grid: Grid = "uniform"


class Linear(NamedTuple):
    """x ← a x + b D(x, t) + c z."""

    t: float
    a: float
    b: float
    c: float


def advance(step: Linear, x: Tensor, denoise: Call, draw: Draw) -> Tensor:
    """Return the state after one step, a new tensor; no noise is drawn where c = 0."""
    t, a, b, c = step
    x = (a * x).add_(denoise(x, t), alpha=b)
    return x.add_(draw(), alpha=c) if c else x


class LinearSampler(GridSampler):
    """A sampler whose every step is x ← a x + b D(x, t) + c z."""

    def growth(self, plan: Sequence[Linear], process: Process) -> float:
        """Return sqrt(v_N) / prior_std, v ← a² v + c²: around one point D is that point."""
        first = left = process.prior_std() ** 2
        for step in plan[:-1] or plan:
            left = step.a**2 * left + step.c**2
        return math.sqrt(left / first)

    def states(
        self, plan: Sequence[Linear], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each step."""
        for step in plan:
            x = advance(step, x, denoise, draw)
            yield x
