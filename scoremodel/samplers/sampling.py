"""The loop that all samplers share: batches, each sample's own noise, the count of network calls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.bounds import Bounds, Count, NonNegative, check_arguments, shown
from scoremodel.denoiser import Denoiser
from scoremodel.parametrisation import Denoise, as_denoise
from scoremodel.precision import Precision
from scoremodel.processes.base import Process
from scoremodel.processes.until import until
from scoremodel.rng import random_normal
from scoremodel.samplers.base import Sampler

__all__ = ["Callback", "Noise", "Samples", "equal_parts", "sample"]

_ROWS = 16
"""On a CPU a row is rounded the same way in every batch of a multiple of so many: with fewer a matrix
product takes another way, with others what is left over by the vector instructions of an activation."""


_TOGETHER = 1 << 16
"""So many numbers are drawn together at most, where one draw takes fewer."""


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Args:
        x: samples with shape (count, *shape), on the scale of the data, which a few values leave by a
            little: images are had by `scoremodel.quantise`, which clamps them, or `x.clamp(-1, 1)`.
        nfe: number of times the network was called for each sample, counted.
        trajectory: where sampling started and the state after each step, with shape (1 + number of
            steps, count, *shape), if it was asked for.
    """

    x: Tensor
    nfe: int
    trajectory: Tensor | None = None


Callback = Callable[[int, Tensor], object]
"""Called with (number of steps done, state of the batch's samples) after each step."""


Noise = Callable[[int, range], Tensor]
"""Called with (number k of the draw, from 0; which of the samples 0 … count − 1), gives their standard
normal noise with shape (len(samples), *shape)."""


def sample(
    model: Denoiser | Denoise,
    sampler: Annotated[Sampler, "Heun(steps=18)"],
    count: Count,
    seed: int,
    *,
    labels: Tensor | Sequence[int] | int | None = None,
    guidance: NonNegative = 1.0,
    guide: Denoiser | Denoise | None = None,
    start: Annotated[int, Bounds(ge=0)] = 0,
    batch_size: Count = 128,
    precision: Precision = "float32",
    process: Annotated[Process, "VP()"] | None = None,
    shape: Sequence[int] | None = None,
    mean: Tensor | Sequence[float] | float | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    x_init: Tensor | None = None,
    t_init: Annotated[float, Bounds(gt=0, le=1)] = 1.0,
    noise: Tensor | Noise | None = None,
    callback: Callback | None = None,
    trajectory: bool = False,
    progress: bool = False,
) -> Samples:
    """Return samples number start … start + count − 1 of the stream `seed`.

    Sample i is a function of (seed, i) and its label, and so is its noise, by a counter-based generator
    (`scoremodel.rng`), the same on every device and in every floating-point type. On a CPU a Denoiser's
    samples are the same to the bit whatever the batch: the rounding of a product depends on the number
    of rows only below 16, to which smaller batches are filled up. So 4 samples cost there what 16 do.

    With `x_init` sampling starts from a state of yours instead of the prior's: a latent that several
    samplers share, or data with the noise of an earlier time, which come back as similar data (SDEdit,
    Meng et al. 2022, arXiv:2108.01073):

        t = torch.full((len(x),), 0.4)
        x_init = model.process.perturb(x, t, torch.randn_like(x))
        sample(model, Heun(18), len(x), 0, x_init=x_init, t_init=0.4)

    Args:
        model: a `Denoiser`, or any function (x_t (B, *), t (B,)) → E[x_0 | x_t], which needs
            `process` and `shape`; of one that takes a gradient see `as_denoise`.
        sampler: the sampler.
        count: number of samples.
        seed: the stream.
        labels: the class of each sample with shape (count,), or one for all, for a class-conditional
            Denoiser; None asks it for no class in particular.
        guidance: scale of classifier-free guidance, see `Denoiser.along`, or of the guide's; 1 is none.
        guide: a weaker model of the same data, of the kind that `model` is: one trained less, or another
            average of its weights. With it the sampler is given D_guide + w (D_model − D_guide), w the
            guidance, both of the same labels (autoguidance, Karras et al. 2024, arXiv:2406.02507).
        start: number of the first sample.
        batch_size: the most samples that are drawn together, on a CPU at least 16 of a Denoiser's,
            in multiples of 16.
        precision: what a Denoiser's network computes in: float32 (its own type), bfloat16, or auto, which
            is bfloat16 on a CUDA card that has it. Only the network's call does: the state and the
            coefficients of the steps stay in the model's type.
        process: the process to reverse; a Denoiser's own by default. A Denoiser can be sampled
            along any process: it is asked for the noise level that the path has at each time.
        shape: shape of one sample; a Denoiser's own, or that of `x_init`, by default.
        mean: the data's mean, on which the prior of a process with alpha_1 = 1 is centred, one number,
            or one for each channel or dimension; a Denoiser's own by default, else 0.
        dtype: floating-point type; a Denoiser has its own, else that of `x_init` or float32.
        device: where to sample; a Denoiser's own by default, else the CPU.
        x_init: the states at `t_init` with shape (count, *shape), from which sampling starts; None is
            the prior's draw. The noise of the steps is the same with it and without.
        t_init: the time of `x_init`, of a chain the nearest level's. The sampler takes all of its steps
            from there; times given to it one by one are shares of this time.
        noise: the standard normal noise in the order in which it is drawn, instead of the stream's: the
            prior's, unless `x_init` is given, then the steps'. A tensor with shape (draws, count,
            *shape), or a function.
        callback: sees the state after each step of each batch; it must not change it.
        trajectory: whether to keep where sampling started and the state after each step.
        progress: whether to show a progress bar with the time left.

    Returns:
        The samples, the number of network calls, and the trajectory if asked for.

    Raises:
        ValueError: if an argument is not allowed, a function comes without process or shape or with
            labels, something has another shape than is said here, or the process does not define the
            sampler.
    """
    given = {"sampler": sampler, "count": count, "seed": seed, "guidance": guidance, "start": start}
    given |= {
        "batch_size": batch_size,
        "process": process,
        "t_init": t_init,
        "precision": precision,
    }
    check_arguments("sample", sample, given)
    if isinstance(model, Denoiser):
        process, shape = process or model.process, shape or model.shape
        mean = model.data_mean if mean is None else mean
        if dtype not in (None, model.data_mean.dtype):
            raise ValueError(
                f"the model computes in {model.data_mean.dtype}, got dtype={dtype}; convert the model"
            )
        dtype, device = model.data_mean.dtype, device or model.data_mean.device
        labels = None if labels is None else _labels(labels, count)
        model.checked(labels, guidance if guide is None else 1.0)
    elif labels is not None or (guidance != 1.0 and guide is None) or precision != "float32":
        raise ValueError("labels, guidance and precision need a model that is a Denoiser")
    else:
        model = as_denoise(model)
    if guide is not None:
        guide = _guide(guide, model)
    if shape is None and x_init is not None:
        shape = x_init.shape[1:]
    if process is None or shape is None:
        raise ValueError("a model that is not a Denoiser needs process= and shape=")
    if x_init is None and t_init != 1:
        raise ValueError(f"t_init={t_init:g} needs x_init, the states at that time")
    if x_init is not None:
        _require("x_init", x_init, (count, *shape))
        dtype = dtype or x_init.dtype
    if isinstance(noise, Tensor):
        _require("noise", noise, (len(noise), count, *shape))
    dtype, device = dtype or torch.float32, torch.device(device or "cpu")
    centre = None if mean is None else _centre(mean, shape, dtype, device)

    process, end = until(process, t_init)
    plan = sampler.plan(process)
    times = sampler.call_times(plan)
    how = precision, times, dtype, device
    denoise: _Calls | _Autoguided
    if guide is None:
        denoise = _Calls(model, process, end, guidance, *how)
    else:
        strong, weak = (_Calls(one, process, end, 1.0, *how) for one in (model, guide))
        denoise = _Autoguided(strong, weak, guidance)
    least = _ROWS if isinstance(model, Denoiser) and device.type == "cpu" else 1
    groups = equal_parts(math.ceil(count / least), max(batch_size // least, 1))
    parts = [range(part.start * least, min(part.stop * least, count)) for part in groups]
    # In inference mode, 3 to 7 % faster on a CPU, nobody else's function could take a gradient.
    asked = [one for one in (model, guide) if one is not None]
    ours = all(isinstance(one, Denoiser) and "kind" in one.network_config for one in asked)
    done: list[Tensor] = []
    paths: list[Tensor] = []
    with (
        torch.inference_mode() if ours else torch.no_grad(),
        tqdm(
            total=len(parts) * len(plan), desc=sampler.kind, unit="step", disable=not progress
        ) as bar,
    ):
        for part in parts:
            size, rows = len(part), -(-len(part) // least) * least
            inside = torch.arange(part.start, part.start + rows).clamp(max=part.stop - 1)
            if isinstance(labels, Tensor):
                denoise.set_labels(labels[inside])
            if noise is None:
                numbers = range(start + part.start, start + part.start + rows)
                draw = _draw(seed, numbers, shape, dtype, device)
            else:
                draw = _given(noise, part, rows, shape, dtype, device)
            if x_init is None:
                x = process.prior_std() * next(draw)
                if process.prior_keeps_mean and centre is not None:
                    x += centre
            else:
                x = x_init[inside.to(x_init.device)].to(device, dtype)
                if noise is None:
                    next(draw)
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


def _require(name: str, value: Any, shape: Sequence[int]) -> None:
    if (
        not isinstance(value, Tensor)
        or value.shape != tuple(shape)
        or not value.is_floating_point()
    ):
        what = (
            f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else value
        )
        raise ValueError(
            f"{name}: {what if isinstance(what, str) else shown(what)} is not allowed, allowed: "
            f"floating-point numbers of shape {tuple(shape)}"
        )


def _labels(labels: Any, count: int) -> Tensor:
    """Return labels with shape (count,), from whatever a list of them is."""
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"labels: {shown(labels)} is not allowed, allowed: class numbers"
        ) from None
    found = found.expand(count) if found.ndim == 0 else found
    if found.shape != (count,):
        raise ValueError(f"{count} samples need labels of shape ({count},), got {found.shape}")
    return found


def _centre(mean: Any, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the mean in a shape that adds to samples, one number for each channel as a column."""
    found = torch.as_tensor(mean, dtype=dtype, device=device)
    if found.ndim == 1 and len(found) == shape[0]:
        found = found.view(-1, *(1,) * (len(shape) - 1))
    try:
        found.expand(*shape)
    except RuntimeError:
        raise ValueError(
            f"mean: shape {tuple(found.shape)} is not allowed, allowed: () or ({shape[0]},) for samples "
            f"of shape {tuple(shape)}"
        ) from None
    return found


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
        end: float,
        guidance: float,
        precision: Precision,
        times: Sequence[float],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.model, self.process, self.end, self.guidance = model, process, end, guidance
        self.precision = precision
        self.labels: Tensor | None = None
        self.each = 1
        self.count = 0
        self.known: dict[float, Tensor] = {}
        if isinstance(model, Denoiser):
            self.whole = model.stepwise(process, times, guidance, precision)
            self.prepared = frozenset(times)
        else:
            tensors = torch.tensor([end * t for t in times], dtype=dtype, device=device).unbind()
            self.known = dict(zip(times, tensors, strict=True))

    def set_labels(self, labels: Tensor) -> None:
        assert isinstance(self.model, Denoiser)
        self.labels = self.model.checked(labels, self.guidance)
        self.each = 2 if self.labels is not None and self.guidance != 1.0 else 1

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        self.count += self.each
        if isinstance(t, Tensor) and t.ndim == 0:
            t = float(t)
        if not isinstance(self.model, Denoiser):
            if isinstance(t, Tensor):
                return self.model(x, self.end * t)
            if t not in self.known:
                self.known[t] = x.new_tensor(self.end * t)
            return self.model(x, self.known[t].expand(len(x)))
        if isinstance(t, Tensor) or t not in self.prepared:
            times = t if isinstance(t, Tensor) else x.new_full((len(x),), t)
            along = self.model.along(self.process, self.labels, self.guidance, self.precision)
            return along(x, times)
        return self.whole(x, t, self.labels)


class _Autoguided:
    """Two models as samplers call one: D_guide + w (D_model − D_guide)."""

    def __init__(self, model: _Calls, guide: _Calls, guidance: float) -> None:
        self.model, self.guide, self.guidance = model, guide, guidance

    @property
    def count(self) -> int:
        return self.model.count + self.guide.count

    def set_labels(self, labels: Tensor) -> None:
        self.model.set_labels(labels)
        self.guide.set_labels(labels)

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        strong = self.model(x, t)
        return (
            strong if self.guidance == 1.0 else torch.lerp(self.guide(x, t), strong, self.guidance)
        )


def _guide(guide: Denoiser | Denoise, model: Denoiser | Denoise) -> Denoiser | Denoise:
    """Return a model's guide, if it is one of the same data."""
    if not isinstance(model, Denoiser):
        return as_denoise(guide)
    if not isinstance(guide, Denoiser):
        raise ValueError(
            f"guide: {shown(guide)} is not allowed, allowed: a Denoiser, as the model is"
        )
    for name in ("shape", "classes"):
        own, wanted = getattr(guide, name), getattr(model, name)
        if own != wanted:
            raise ValueError(
                f"guide: one of {name} {own} is not allowed, allowed: {wanted}, which the model has"
            )
    return guide


def _given(
    noise: Tensor | Noise,
    part: range,
    rows: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield the noise that somebody gives of these samples, the last one's again for rows beyond."""
    for k in itertools.count():
        if not isinstance(noise, Tensor):
            one = noise(k, part)
            _require(f"noise: draw {k}", one, (len(part), *shape))
        elif k < len(noise):
            one = noise[k, part.start : part.stop]
        else:
            raise ValueError(f"noise: {len(noise)} draws are not enough, the sampler takes more")
        again = torch.arange(rows, device=one.device).clamp(max=len(part) - 1)
        yield one[again].to(device, dtype)


def _draw(
    seed: int, numbers: range, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor]:
    """Yield the noise of these samples, draw after draw."""
    # Samplers of the ODE take the first draw alone. Of the others' the next few are drawn together
    # where they are small, since a call costs 0.3 ms whatever it draws.
    several = max(1, min(16, _TOGETHER // max(1, len(numbers) * math.prod(shape))))
    draws = range(1)
    while True:
        yield from random_normal(
            seed, "sample", numbers, shape, draws=draws, dtype=dtype, device=device
        )
        draws = range(draws.stop, draws.stop + several)
