"""What all samplers share: time grids, the loop, per-sample noise, the count of network calls.

A sampler turns (sde, number of steps) into a list of steps whose coefficients are plain floats,
computed once before the loop, and says how one step moves x. Everything else happens here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.processes.chain import Chain
from scoremodel.denoiser import Denoise, Denoiser
from scoremodel.rng import generators, randn_rows
from scoremodel.processes.sde import SDE, Process

__all__ = [
    "GRIDS",
    "Call",
    "Callback",
    "Draw",
    "Grid",
    "GridName",
    "Kernel",
    "Linear",
    "LinearSampler",
    "Sampler",
    "Samples",
    "as_sde",
    "kernel_steps",
    "sample",
    "time_grid",
]

GridName = Literal["uniform", "log_snr", "edm"]
GRIDS: tuple[str, ...] = get_args(GridName)
Grid = GridName | tuple[float, ...]
"""How times are spaced: by one of these rules, or the times themselves."""

EDM_RHO = 7.0

Call = Callable[[Tensor, float | Tensor], Tensor]
"""The denoiser: (x_t with shape (B, *), t) → E[x_0 | x_t], with one time for the whole batch as a
float, or a time for each with shape (B,)."""

Draw = Callable[[], Tensor]
"""Fresh standard normal noise with the shape (B, *) of the batch."""


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
        falls = all(t > s for t, s in pairwise(grid))
        if len(grid) != points or grid[0] != 1 or grid[-1] <= 0 or not falls:
            raise ValueError(
                f"a grid of {points} times must fall from 1 to more than 0, got {len(grid)} times "
                f"{grid}"
            )
        if isinstance(process, Chain):
            index = process.index(torch.tensor(grid, dtype=torch.float64))
            if bool((index.diff() >= 0).any()):
                raise ValueError(f"of the times {grid} two are the same level of {process.kind}")
        return list(grid)
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}, allowed: {', '.join(GRIDS)}")
    times = process.grid(points)
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


@dataclass(frozen=True)
class Sampler(ABC):
    """A way from the prior at t = 1 back to the data.

    A sampler is two functions: `plan` computes every step's coefficients as floats, once, and
    `states` is the loop itself, which yields x after each step. A new sampler writes these two.

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
    def plan(self, process: Process) -> Sequence[Any]:
        """Return the steps, each with its coefficients as floats, in the order they are taken.

        Args:
            process: the process to be reversed.

        Returns:
            One entry for each step, as `states` wants it.

        Raises:
            ValueError: if the process does not define this sampler.
        """

    def times(self, plan: Sequence[Any]) -> list[float]:
        """Return the times at which a plan calls the model, so that it can prepare for them."""
        return [step.t for step in plan]

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


class Linear(NamedTuple):
    """x ← a x + b D(x, t) + c z."""

    t: float
    a: float
    b: float
    c: float


class LinearSampler(Sampler):
    """A sampler whose every step is x ← a x + b D(x, t) + c z."""

    def states(
        self, plan: Sequence[Linear], x: Tensor, denoise: Call, draw: Draw
    ) -> Iterator[Tensor]:
        """Yield the state after each step; no noise is drawn where c = 0."""
        for t, a, b, c in plan:
            x = (a * x).add_(denoise(x, t), alpha=b)
            if c:
                x.add_(draw(), alpha=c)
            yield x


def as_sde(process: Process, sampler: str) -> SDE:
    """Return `process` if it has drift and diffusion.

    Args:
        process: an SDE or a chain.
        sampler: who asks, for the message.

    Returns:
        The SDE.

    Raises:
        ValueError: if it is a chain, naming the sampler that asked.
    """
    if not isinstance(process, SDE):
        raise ValueError(
            f"{sampler} needs a process with drift and diffusion, {process.kind} has only levels; "
            "allowed for it: ancestral, reverse_diffusion, ddim, annealed_langevin and others that "
            "use the kernel alone"
        )
    return process


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
    """Return the steps over the grid.

    Args:
        process: the process to be reversed.
        steps: number of steps.
        grid: how the times are spaced.
        denoise_last: whether the last step goes from t_min to alpha = 1, sigma = 0.

    Returns:
        The steps with their coefficients as floats.
    """
    times = time_grid(process, steps if denoise_last else steps + 1, grid)
    t = torch.tensor(times, dtype=torch.float64)
    nodes = list(zip(times, process.alpha(t).tolist(), process.sigma(t).tolist(), strict=True))
    if denoise_last:
        nodes.append((0.0, 1.0, 0.0))
    return [Kernel(*here, *there) for here, there in pairwise(nodes)]


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Args:
        x: samples with shape (count, *shape), on the scale of the data.
        nfe: number of times the network was called for each sample, counted.
        trajectory: the prior's draw and the state after each step, with shape (1 + number of steps,
            count, *shape), if it was asked for.
    """

    x: Tensor
    nfe: int
    trajectory: Tensor | None = None


Callback = Callable[[int, Tensor], object]
"""Called with (number of steps done, state with shape (batch_size, *)) after each step."""


def sample(
    model: Denoiser | Denoise,
    sampler: Sampler,
    count: int,
    seed: int,
    *,
    labels: Tensor | None = None,
    guidance: float = 1.0,
    start: int = 0,
    batch_size: int = 128,
    process: Process | None = None,
    shape: Sequence[int] | None = None,
    mean: Tensor | float | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    callback: Callback | None = None,
    trajectory: bool = False,
    progress: bool = False,
) -> Samples:
    """Return samples number start … start + count − 1 of the stream `seed`.

    Sample i is a function of (seed, i) and its label: its noise comes from a generator of its own,
    and batches always have the same size (the last one is padded), because the rounding of a product
    may depend on the size of the batch. On a CPU it does so below 16 only: from there on samples are
    the same to the bit whatever the batch size.

    Args:
        model: a `Denoiser`, or any function (x_t (B, *), t (B,)) → E[x_0 | x_t], which needs
            `process` and `shape`.
        sampler: the sampler.
        count: number of samples.
        seed: the stream.
        labels: the class of each sample with shape (count,), for a class-conditional Denoiser; None
            asks it for no class in particular.
        guidance: scale of classifier-free guidance, see `Denoiser.along`; 1 is none.
        start: number of the first sample.
        batch_size: samples that are drawn together.
        process: the process to reverse; a Denoiser's own by default. A Denoiser can be sampled
            along any process: it is asked for the noise level that the path has at each time.
        shape: shape of one sample; a Denoiser's own by default.
        mean: the data's mean, on which the prior of a process with alpha_1 = 1 is centred; a
            Denoiser's own by default, else 0.
        dtype: floating-point type; a Denoiser has its own, else float32 by default.
        device: where to sample; a Denoiser's own by default, else the CPU.
        callback: sees the state after each step of each batch; it must not change it.
        trajectory: whether to keep the prior's draw and the state after each step.
        progress: whether to show a progress bar with the time left.

    Returns:
        The samples, the number of network calls, and the trajectory if asked for.

    Raises:
        ValueError: if count or batch_size is not positive, a function comes without process or
            shape or with labels, the labels do not fit, or the process does not define the sampler.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"count and batch_size must be at least 1, got {count} and {batch_size}")
    if isinstance(model, Denoiser):
        process, shape = process or model.process, shape or model.shape
        mean = model.data_mean if mean is None else mean
        if dtype not in (None, model.data_mean.dtype):
            raise ValueError(
                f"the model computes in {model.data_mean.dtype}, got dtype={dtype}; convert the model"
            )
        dtype, device = model.data_mean.dtype, device or model.data_mean.device
        model.checked(labels, guidance)
    elif labels is not None or guidance != 1.0:
        raise ValueError("labels and guidance need a model that is a Denoiser")
    if process is None or shape is None:
        raise ValueError("a model that is not a Denoiser needs process= and shape=")
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"{count} samples need labels of shape ({count},), got {labels.shape}")
    dtype, device = dtype or torch.float32, torch.device(device or "cpu")

    plan = sampler.plan(process)
    denoise = _Calls(model, process, guidance, sampler.times(plan), dtype, device)
    batches = math.ceil(count / batch_size)
    done: list[Tensor] = []
    paths: list[Tensor] = []
    with (
        torch.inference_mode(),
        tqdm(
            total=batches * len(plan), desc=sampler.kind, unit="step", disable=not progress
        ) as bar,
    ):
        for batch in range(batches):
            first = batch * batch_size
            if labels is not None:
                inside = torch.arange(first, first + batch_size).clamp(max=count - 1)
                denoise.set_labels(labels[inside])
            numbers = range(start + first, start + first + batch_size)
            draw = _draw(generators(seed, "sample", numbers), shape, dtype, device)
            x = process.prior_std() * next(draw)
            if process.prior_keeps_mean and mean is not None:
                x += mean
            path = [x.clone()] if trajectory else []
            states = sampler.states(plan, x, denoise, draw.__next__)
            for step, x in enumerate(states, 1):
                bar.update()
                if callback is not None:
                    callback(step, x)
                if trajectory:
                    path.append(x.clone())
            done.append(x)
            if trajectory:
                paths.append(torch.stack(path))
    return Samples(
        torch.cat(done)[:count].clone(),
        round(denoise.count / batches),
        torch.cat(paths, dim=1)[:, :count].clone() if trajectory else None,
    )


class _Calls:
    """The model as samplers call it, counting the network's calls for each sample."""

    def __init__(
        self,
        model: Denoiser | Denoise,
        process: Process,
        guidance: float,
        times: Sequence[float],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.model, self.process, self.guidance = model, process, guidance
        self.labels: Tensor | None = None
        self.each = 1
        self.count = 0
        if isinstance(model, Denoiser):
            self.whole = model.stepwise(process, times, guidance)
        else:
            tensors = torch.tensor(times, dtype=dtype, device=device).unbind()
            self.known = dict(zip(times, tensors, strict=True))

    def set_labels(self, labels: Tensor) -> None:
        assert isinstance(self.model, Denoiser)
        self.labels = self.model.checked(labels, self.guidance)
        self.each = 2 if self.labels is not None and self.guidance != 1.0 else 1

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        self.count += self.each
        if not isinstance(self.model, Denoiser):
            return self.model(x, t if isinstance(t, Tensor) else self.known[t].expand(len(x)))
        if isinstance(t, Tensor):
            return self.model.along(self.process, self.labels, self.guidance)(x, t)
        return self.whole(x, t, self.labels)


def _draw(
    streams: Sequence[torch.Generator],
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tensor]:
    # One call of the generator costs 3 µs whatever it draws, so small samples get the noise of
    # several steps at once: how many depends on the shape alone, as sample i's stream must.
    ahead = max(1, min(16, 16384 // math.prod(shape)))
    while True:
        rows = randn_rows(streams, (ahead, *shape), dtype).to(device)
        yield from rows.transpose(0, 1).contiguous().unbind()
