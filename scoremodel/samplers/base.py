"""What all samplers share: time grids, the loop, per-sample noise, the count of network calls.

A sampler turns (sde, number of steps) into a list of steps whose coefficients are plain floats,
computed once before the loop, and says how one step moves x. Everything else happens here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.denoiser import Denoise, Denoiser
from scoremodel.rng import generators, randn_rows
from scoremodel.sde import SDE

__all__ = ["GRIDS", "Grid", "Sampler", "Samples", "sample", "time_grid"]

Grid = Literal["uniform", "log_snr", "edm"]
GRIDS: tuple[str, ...] = get_args(Grid)
EDM_RHO = 7.0

Call = Callable[[Tensor, float], Tensor]
"""The denoiser at one time for the whole batch: (x_t with shape (B, *), t) → E[x_0 | x_t]."""

Draw = Callable[[], Tensor]
"""Fresh standard normal noise with the shape (B, *) of the batch."""


def time_grid(sde: SDE, points: int, grid: Grid) -> list[float]:
    """Return `points` times that fall from 1 to sde.t_min.

    With r = sigma_t / alpha_t and i from 0 to points − 1:

        uniform  t_i equally spaced
        log_snr  ln r_i equally spaced
        edm      r_i^(1/7) equally spaced (Karras et al. 2022, arXiv:2206.00364, eq. 5)

    Args:
        sde: the process to be reversed.
        points: number of times, at least 1.
        grid: one of the names above.

    Returns:
        The times as floats, the first exactly 1 and (if points > 1) the last exactly t_min.

    Raises:
        ValueError: if the grid is unknown or points < 1.
    """
    if points < 1:
        raise ValueError(f"a time grid needs at least 1 point, got {points}")
    u = torch.linspace(0, 1, points, dtype=torch.float64)
    ends = torch.tensor([1.0, sde.t_min], dtype=torch.float64)
    if grid == "uniform":
        t = ends[0] + u * (ends[1] - ends[0])
    elif grid == "log_snr":
        first, last = sde.ratio(ends).log()
        t = sde.t_of_ratio((first + u * (last - first)).exp())
    elif grid == "edm":
        first, last = sde.ratio(ends) ** (1 / EDM_RHO)
        t = sde.t_of_ratio((first + u * (last - first)) ** EDM_RHO)
    else:
        raise ValueError(f"unknown grid {grid!r}, allowed: {', '.join(GRIDS)}")
    times: list[float] = t.tolist()
    times[0] = 1.0
    if points > 1:
        times[-1] = sde.t_min
    return times


@dataclass(frozen=True)
class Sampler(ABC):
    """A way from the prior at t = 1 back to the data.

    Args:
        steps: number of steps.
        grid: how the times are spaced, see `time_grid`.

    Raises:
        ValueError: if steps < 1.
    """

    steps: int
    grid: Grid = "uniform"

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"{self.kind} needs steps >= 1, got {self.steps}")

    @abstractmethod
    def plan(self, sde: SDE) -> Sequence[Any]:
        """Return the steps, each with its coefficients as floats, in the order they are taken."""

    @abstractmethod
    def advance(self, step: Any, x: Tensor, denoise: Call, draw: Draw) -> Tensor:
        """Return x after one step of the plan; x itself may be overwritten.

        Args:
            step: one element of the plan.
            x: state with shape (B, *).
            denoise: the model.
            draw: gives noise with shape (B, *).

        Returns:
            The next state with shape (B, *).
        """


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Args:
        x: samples with shape (count, *shape), on the scale of the data.
        nfe: number of times the network was called for each sample, counted.
    """

    x: Tensor
    nfe: int


def sample(
    model: Denoiser | Denoise,
    sampler: Sampler,
    count: int,
    seed: int,
    *,
    start: int = 0,
    batch_size: int = 128,
    sde: SDE | None = None,
    shape: Sequence[int] | None = None,
    mean: Tensor | float | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Samples:
    """Return samples number start … start + count − 1 of the stream `seed`.

    Sample i is a function of (seed, i): its noise comes from a generator of its own, and batches
    always have the same size (the last one is padded), because the rounding of a product may depend
    on the size of the batch. On a CPU it does so below 16 only: from there on samples are the same
    to the bit whatever the batch size.

    Args:
        model: a `Denoiser`, or any function (x_t (B, *), t (B,)) → E[x_0 | x_t], which needs the
            next four arguments.
        sampler: the sampler.
        count: number of samples.
        seed: the stream.
        start: number of the first sample.
        batch_size: samples that are drawn together.
        sde: the process to reverse; a Denoiser's own by default.
        shape: shape of one sample; a Denoiser's own by default.
        mean: the data's mean, on which the prior of a process with alpha_1 = 1 is centred; a
            Denoiser's own by default, else 0.
        dtype: floating-point type; a Denoiser's own by default, else float32.
        device: where to sample; a Denoiser's own by default, else the CPU.
        progress: whether to show a progress bar with the time left.

    Returns:
        The samples and the number of network calls.

    Raises:
        ValueError: if count or batch_size is not positive, or a function comes without sde or shape.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"count and batch_size must be at least 1, got {count} and {batch_size}")
    if isinstance(model, Denoiser):
        sde, shape = sde or model.sde, shape or model.shape
        mean = model.data_mean if mean is None else mean
        dtype, device = dtype or model.data_mean.dtype, device or model.data_mean.device
    if sde is None or shape is None:
        raise ValueError("a model that is not a Denoiser needs sde= and shape=")
    dtype, device = dtype or torch.float32, torch.device(device or "cpu")

    plan = sampler.plan(sde)
    calls = 0

    def denoise(x: Tensor, t: float) -> Tensor:
        nonlocal calls
        calls += 1
        return model(x, torch.full((len(x),), t, dtype=dtype, device=device))

    batches = math.ceil(count / batch_size)
    done: list[Tensor] = []
    with (
        torch.inference_mode(),
        tqdm(
            total=batches * len(plan), desc=sampler.kind, unit="step", disable=not progress
        ) as bar,
    ):
        for batch in range(batches):
            first = start + batch * batch_size
            streams = generators(seed, "sample", range(first, first + batch_size))
            draw = _draw(streams, shape, dtype, device)
            x = sde.prior_std() * next(draw)
            if sde.prior_keeps_mean and mean is not None:
                x += mean
            for step in plan:
                x = sampler.advance(step, x, denoise, draw.__next__)
                bar.update()
            done.append(x)
    return Samples(torch.cat(done)[:count].clone(), calls // batches)


def _draw(
    streams: Sequence[torch.Generator],
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tensor]:
    # One call of the generator costs 3 µs whatever it draws, so small samples get the noise of
    # several steps at once: how many depends on the shape alone, as sample i's stream must.
    ahead = max(1, min(16, 4096 // math.prod(shape)))
    while True:
        block = randn_rows(streams, (ahead, *shape), dtype)
        for step in range(ahead):
            yield block[:, step].to(device).contiguous()
