"""The loop that all samplers share: batches, each sample's own noise, the count of network calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.denoiser import Denoiser
from scoremodel.parametrisation import Denoise
from scoremodel.processes.base import Process
from scoremodel.rng import generators, randn_rows
from scoremodel.samplers.base import Sampler

__all__ = ["Callback", "Samples", "equal_parts", "sample"]

_LEAST_ROWS = 16
"""On a CPU a row of a matrix product is rounded the same way in every batch of at least so many rows."""


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
"""Called with (number of steps done, state of the batch's samples) after each step."""


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

    Sample i is a function of (seed, i) and its label, and its noise comes from a generator of its
    own. On a CPU a Denoiser's samples are the same to the bit whatever the batch: the rounding of a
    product depends on the number of rows only below 16, to which smaller batches are filled up.

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
        batch_size: the most samples that are drawn together; batches are equal but for one sample.
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
    denoise = _Calls(model, process, guidance, sampler.call_times(plan), dtype, device)
    parts = equal_parts(count, batch_size)
    least = _LEAST_ROWS if isinstance(model, Denoiser) and device.type == "cpu" else 1
    done: list[Tensor] = []
    paths: list[Tensor] = []
    with (
        torch.inference_mode(),
        tqdm(
            total=len(parts) * len(plan), desc=sampler.kind, unit="step", disable=not progress
        ) as bar,
    ):
        for part in parts:
            size, rows = len(part), max(len(part), least)
            if labels is not None:
                inside = torch.arange(part.start, part.start + rows).clamp(max=part.stop - 1)
                denoise.set_labels(labels[inside])
            numbers = range(start + part.start, start + part.start + rows)
            draw = _draw(generators(seed, "sample", numbers), shape, dtype, device)
            x = process.prior_std() * next(draw)
            if process.prior_keeps_mean and mean is not None:
                x += mean
            path = [x[:size].clone()] if trajectory else []
            states = sampler.states(plan, x, denoise, draw.__next__)
            for step, x in enumerate(states, 1):
                bar.update()
                if callback is not None:
                    callback(step, x[:size])
                if trajectory:
                    path.append(x[:size].clone())
            done.append(x[:size])
            if trajectory:
                paths.append(torch.stack(path))
    return Samples(
        torch.cat(done).clone(),
        round(denoise.count / len(parts)),
        torch.cat(paths, dim=1) if trajectory else None,
    )


def equal_parts(count: int, largest: int) -> list[range]:
    """Return 0 … count − 1 in as few parts as have at most `largest`, their sizes equal but for one."""
    parts = math.ceil(count / largest)
    ends = [count * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in pairwise(ends)]


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
