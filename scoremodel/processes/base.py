"""What every forward process is, and the kinds of them by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoremodel.bounds import check_bounds
from scoremodel.registry import Registry

__all__ = [
    "PROCESSES",
    "Process",
    "check_shape",
    "check_times",
    "column",
    "has_config",
    "process_from_config",
]


class Process(ABC):
    """A forward process with kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t² I), t in [0, 1].

    All that training and most samplers need. An `SDE` has every t in [0, 1]; a `Chain` has t = i / N
    for its levels i = 1 … N only. Every method takes times of any shape and returns that shape; of
    times outside [0, 1] it raises ValueError.
    """

    kind: ClassVar[str]
    prior_keeps_mean: ClassVar[bool] = False
    """Whether the prior is centred on the data's mean (alpha_1 = 1) or on zero (alpha_1 ≈ 0)."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kind = cls.__name__  # until it is registered

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The first time with a score: noise-free data have none."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t, the factor by which the data have shrunk."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t, the standard deviation of the noise."""

    @abstractmethod
    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time t at which sigma_t / alpha_t equals `ratio`, or is nearest to it."""

    @abstractmethod
    def time_of_quantile(self, u: Tensor) -> Tensor:
        """Return the times of this process that u in [0, 1) stands for, all equally likely."""

    def uniform_grid(self, points: int) -> Tensor:
        """Return so many times (float64) that fall from 1 to t_min, equally spaced."""
        return 1 + torch.linspace(0, 1, points, dtype=torch.float64) * (self.t_min - 1)

    def prior_std(self) -> float:
        """Return the standard deviation of the prior, from which sampling starts."""
        return float(self.sigma(torch.ones((), dtype=torch.float64)))

    def ratio(self, t: Tensor) -> Tensor:
        """Return sigma_t / alpha_t, the noise level of x_t / alpha_t (EDM's sigma)."""
        return self.sigma(t) / self.alpha(t)

    def left_in_prior(self, std: float) -> float:
        """Return the share of x_1's variance that is the data's: alpha² s² / (alpha² s² + sigma²) at t = 1.

        Data have the standard deviation s; the prior, from which samples start, has none of it.
        """
        first = torch.ones((), dtype=torch.float64)
        kept = (float(self.alpha(first)) * std) ** 2
        return kept / (kept + float(self.sigma(first)) ** 2)

    def smallest_ratio(self) -> float:
        """Return sigma_t / alpha_t at t_min, the smallest noise that is learned."""
        return float(self.ratio(torch.tensor(self.t_min, dtype=torch.float64)))

    def perturb(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x_0 + sigma_t noise with shape (B, *).

        Data and standard normal noise have shape (B, *), times shape (B,); others get a ValueError.
        """
        check_shape(noise, x_0, "noise")
        return column(self.alpha(t), x_0) * x_0 + column(self.sigma(t), x_0) * noise

    def config(self) -> dict[str, Any]:
        """Return the parameters from which `process_from_config` makes this process again."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


PROCESSES: Registry[type[Process]] = Registry("scoremodel.processes", "process")


def process_from_config(
    config: Mapping[str, Any], data: Callable[[], Tensor] | None = None
) -> Process:
    """Return the process that `config` names.

    Args:
        config: "kind" (one of `PROCESSES`) and that process's own parameters. Those that are None
            follow from the data, by the class's `from_data`.
        data: gives the training data in [−1, 1] with shape (N, *), if they are there.

    Returns:
        The process.

    Raises:
        ValueError: if the kind is unknown, a parameter is out of range, or the noise ratio at t = 1
            is beyond single precision.
    """
    parameters = dict(config)
    kind = parameters.pop("kind", None)
    process: Process
    if None in parameters.values() and hasattr(PROCESSES.get(kind), "from_data"):
        if data is None:
            raise ValueError(f"process {kind!r} with {parameters} needs the data that it is for")
        process = PROCESSES[kind].from_data(data(), **parameters)  # type: ignore[attr-defined]
    else:
        process = PROCESSES.make(kind, **parameters)
    if not (process.ratio(torch.ones(())) ** 2).isfinite():
        raise ValueError(
            f"{process} leaves so little of the data at t = 1 that (sigma / alpha)² is not a number in "
            "single precision; allowed: parameters with sigma_1 / alpha_1 < 1e19"
        )
    return process


def has_config(process: Process) -> bool:
    """Return whether a process's `config` makes it again: a registered dataclass's does."""
    cls = type(process)
    return (
        "__dataclass_params__" in vars(cls)
        and is_dataclass(process)
        and PROCESSES.get(process.kind) is cls
        and process_from_config(process.config()) == process
    )


def check_times(t: Tensor) -> None:
    """Refuse times outside [0, 1], up to rounding.

    Times on another device than the CPU are not looked at: that would wait for the device.
    """
    if t.device.type != "cpu" or torch.compiler.is_compiling() or not t.numel():
        return
    low, high = torch.aminmax(t.detach())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(f"times must be in [0, 1], got {float(low):g} … {float(high):g}")


def check_shape(x: Tensor, like: Tensor, name: str) -> None:
    """Refuse `x`, called `name`, if its shape is not that of `like`."""
    if x.shape != like.shape:
        raise ValueError(
            f"data of shape {tuple(like.shape)} need {name} of that shape, got {tuple(x.shape)}"
        )


def column(t: Tensor, x: Tensor) -> Tensor:
    """Return t with shape (B,), one number for each data point of x, in a shape that multiplies x (B, *)."""
    if t.shape != x.shape[:1]:
        raise ValueError(
            f"data of shape {tuple(x.shape)} need times of shape {tuple(x.shape[:1])}, "
            f"got {tuple(t.shape)}"
        )
    return t.view(-1, *(1,) * (x.ndim - 1))
