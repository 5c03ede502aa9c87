"""The training loop: score matching with Adam, warm-up, clipping and averaged copies.

All randomness of step k comes from (seed, k), the order of the data from (seed, epoch): a run that
goes on from a checkpoint is the uninterrupted run, bit for bit. So is one of several processes
(`scoremodel.ranks`): each computes its parts of the batch, and all have the same weights.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from tqdm.auto import tqdm

from scoremodel.bounds import shown
from scoremodel.data.scale import as_data, bin_width, to_unit
from scoremodel.default_rng import keeps_default_generators, seed_default_generators
from scoremodel.denoiser import Denoiser, LabelsLike, as_channels_last
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.networks.base import allow_second_derivatives
from scoremodel.networks.energy import Energy
from scoremodel.parametrisation import Denoise
from scoremodel.precision import resolve_precision
from scoremodel.ranks import Ranks, Tree
from scoremodel.rng import derive_seed, generator
from scoremodel.training import augment
from scoremodel.training.averages import Snapshots, power_decay
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loss import denoising_weight, score_matching_loss
from scoremodel.training.schedules import schedule_factor
from scoremodel.training.uncertainty import Uncertainty

__all__ = ["BANDS", "Observer", "Trained", "learning_rate", "train"]

BANDS = 4
"""The curves show the loss by noise band: t in quarters, band 1 the least noisy."""

_ALONE = Ranks()
_BAND_LOSSES = tuple(f"loss_band_{index + 1}" for index in range(BANDS))
_POINT = ("step", "loss", *_BAND_LOSSES, "grad_norm", "learning_rate")
"""What a point of the curves has, in its order."""
_ADAM = ("exp_avg", "exp_avg_sq", "step")
"""What torch's Adam keeps of a weight."""


@dataclass(frozen=True)
class Trained:
    """What `train` returns.

    Args:
        averaged: the denoiser with averaged weights, in evaluation mode, for each half-life, and for
            each relative width after them.
        curves: one dictionary per `log_every` steps: step, loss, loss_band_1 … loss_band_4,
            grad_norm, learning_rate; the losses are means since the last one.
    """

    averaged: Mapping[float, Denoiser]
    curves: list[dict[str, float]]

    @property
    def denoiser(self) -> Denoiser:
        """The first of the averages."""
        return next(iter(self.averaged.values()))


class Observer(Protocol):
    """What watches a training; it must not change it."""

    def begin(self, step: int) -> None:
        """See how many steps are done already, before the first one here."""

    def point(self, point: Mapping[str, float]) -> None:
        """See a new point of the curves, with images_per_second and memory_mib beside it."""

    def asks(self) -> bool:
        """Return whether to see the first average after the step that is next."""

    def step(self, step: int, averaged: Denoiser) -> None:
        """See the first average after a step of which that was asked."""


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of `step` (0-based): linear warm-up, then the schedule."""
    warmup, decay = config.warmup_steps, config.decay_steps
    factor = schedule_factor(config.schedule, step, config.steps, warmup, decay)
    return config.learning_rate * factor


def _decay(average: float, step: int, config: TrainingConfig) -> float:
    """Return the share of one of `config.averages` that is kept at `step` (0-based)."""
    if average in config.ema_stds:
        return power_decay(average, step + 1)
    if config.ema_ramp is None:
        return float(min(0.5 ** (config.batch_size / average), (1 + step) / (10 + step)))
    half_life = min(average, config.ema_ramp * step * config.batch_size)
    return math.exp2(-config.batch_size / half_life) if half_life else 0.0


class _Batches:
    """Step k's batch: positions k·B … of an endless sequence of epochs, each shuffled by (seed, epoch)."""

    def __init__(self, count: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.count, self.batch_size, self.seed, self.device = count, batch_size, seed, device
        self.orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self.orders:
            self.orders = {e: order for e, order in self.orders.items() if e == epoch - 1}
            shuffle = generator(self.seed, "order", epoch)
            self.orders[epoch] = torch.randperm(self.count, generator=shuffle).to(self.device)
        return self.orders[epoch]

    def __call__(self, step: int) -> Tensor:
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while position < end:
            epoch, offset = divmod(position, self.count)
            parts.append(self._order(epoch)[offset : offset + end - position])
            position += len(parts[-1])
        return torch.cat(parts)


@dataclass(frozen=True)
class _Batch:
    """What one step draws for its batch of B data points.

    Args:
        index: their numbers with shape (B,), where the data are.
        t: times with shape (B,).
        noise: standard normal noise with shape (B, *shape).
        weight: weights of |D − x_0|² with shape (B,).
        bins: what is added to grey levels, with shape (B, *shape), if anything is.
        mirrored: which ones are mirrored, with shape (B,), if any may be.
        labels: their classes with shape (B,), −1 for a hidden one, of a class-conditional model.
        probe: random signs with shape (B, *shape), if the objective takes them.
        augmentation: parameters of the images' augmentations with shape (B, 8), if any are made.
    """

    index: Tensor
    t: Tensor
    noise: Tensor
    weight: Tensor
    bins: Tensor | None
    mirrored: Tensor | None
    labels: Tensor | None
    probe: Tensor | None
    augmentation: Tensor | None


@keeps_default_generators
def train(
    denoiser: Denoiser,
    data: Tensor | NDArray[Any],
    config: TrainingConfig,
    seed: int,
    progress: bool = False,
    labels: LabelsLike | None = None,
    checkpoints: Checkpoints | None = None,
    observer: Observer | None = None,
    true_score: Denoise | None = None,
    ranks: Ranks = _ALONE,
    sharded: bool = False,
    snapshots: Snapshots | None = None,
) -> Trained:
    """Train `denoiser` in place and return its averaged copies with the training curves.

    Step k is a function of (seed, k) and of the state after step k − 1, so a run that goes on from a
    checkpoint ends with the same bits as one that was never interrupted.

    Args:
        denoiser: the model, on the device to train on.
        data: grey levels (integers) or real values with shape (N, *denoiser.shape). They become floats
            a batch at a time, on the model's device; a tensor that is a memory-mapped file is read
            as it is needed.
        config: how to train.
        seed: seed of data order, times, noise and dropout.
        progress: whether to show a progress bar with loss, images/s, memory and the time left.
        labels: class numbers with shape (N,), which a class-conditional model needs.
        checkpoints: where to keep the state, and to go on from; None keeps none.
        observer: watches.
        true_score: ∇ ln p_t(x_t) as a function of (x_t, t), for the objective "explicit" only.
        ranks: this process's place among those that train together, each of which calls this with the
            same arguments. The first one reads and writes the checkpoints, and only what it is given
            to watch is shown; the stop of any of them stops all after the same step.
        sharded: whether each process keeps Adam's moments and the averages of its share of the weights
            only, as ZeRO does (Rajbhandari et al. 2020, arXiv:1910.02054, stage 1), to the same bits.
        snapshots: where the averages by relative width are kept on the way too, for others of them
            afterwards.

    Returns:
        The averaged denoisers and the curves, in every process.

    Raises:
        ValueError: if the data's shape or kind is not the model's, or labels are missing, or given to
            an unconditional model; if an energy is to be compiled, which has second derivatives; if
            images are to be augmented of which the network is not told; if
            there are more processes than parts, or several and a network with batch normalisation.
        TypeError: if the model, the configuration or the seed is of another type.
        FloatingPointError: if a loss is not finite, naming step, noise level and learning rate; the
            last checkpoint is from before it.
        Stopped: if the checkpoints' `stop` says so; the state is saved.
    """
    if snapshots is not None and not config.ema_stds:
        raise ValueError("snapshots: of no averages are not allowed, allowed: with ema_stds")
    run = _Run(denoiser, data, labels, config, seed, true_score, ranks, sharded)
    if checkpoints is not None:
        found = checkpoints.latest() if ranks.first else None
        step, info = ranks.told(None if found is None else (found[0], found[2])) or (0, None)
        if info is not None:
            run.restore(step, ranks.sent(None if found is None else found[1], run.device), info)
    if observer is not None:
        observer.begin(run.step)
    logged, began = run.step, time.perf_counter()
    with tqdm(
        total=config.steps * config.batch_size,
        initial=run.step * config.batch_size,
        desc="train",
        unit="img",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        while run.step < config.steps:
            last = run.step + 1 == config.steps
            stop, due, seen = run.advance(None if last else checkpoints, observer)
            if run.step % config.log_every == 0 or run.step == config.steps:
                point = run.log()
                now = time.perf_counter()
                rate = (run.step - logged) * config.batch_size / (now - began)
                logged, began = run.step, now
                memory = _memory_mib(run.device)
                bar.set_postfix(loss=f"{point['loss']:.4f}", memory=f"{memory:.0f}MiB")
                if observer is not None:
                    observer.point(point | {"images_per_second": rate, "memory_mib": memory})
            bar.update(config.batch_size)
            if snapshots is not None and run.step % snapshots.every == 0:
                run.check()
                with ExitStack() as opened:
                    whole = {std: opened.enter_context(run.whole(std)) for std in config.ema_stds}
                    if ranks.first:
                        snapshots.keep(run.step, whole)
            if checkpoints is not None and (stop or due):
                run.check()
                tensors = run.tensors()
                if ranks.first:
                    checkpoints.save(run.step, tensors, {"curves": run.curves}, stop)
                if stop:
                    raise Stopped(
                        f"stopped after step {run.step} of {config.steps}, whose state is in "
                        f"{checkpoints.folder}; the same command goes on from there"
                    )
            if seen:
                with run.whole(config.averages[0]) as averaged:
                    if observer is not None:
                        observer.step(run.step, averaged)
    return Trained({average: run.filled(average) for average in run.averaged}, run.curves)


def _memory_mib(device: torch.device) -> float:
    """Return the most memory that has been in use: the device's, or else the process's if known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)


class _Run:
    """A training run between two steps."""

    def __init__(
        self,
        denoiser: Denoiser,
        data: Tensor | NDArray[Any],
        labels: LabelsLike | None,
        config: TrainingConfig,
        seed: int,
        true_score: Denoise | None,
        ranks: Ranks,
        sharded: bool,
    ) -> None:
        for name, value, kind in (
            ("denoiser", denoiser, Denoiser),
            ("config", config, TrainingConfig),
            ("seed", seed, int),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"train: {name}: {shown(value)} is not allowed, allowed: one of type {kind.__name__}"
                )
        data = as_data(data, denoiser.levels)
        if config.compile and isinstance(denoiser.network, Energy):
            raise ValueError("an energy's loss has second derivatives: compile not it")
        if data.shape[1:] != denoiser.shape:
            raise ValueError(
                f"data of shape {tuple(data.shape)} do not fit a model of {denoiser.shape}"
            )
        if config.augment is not None and len(denoiser.shape) != 3:
            raise ValueError(
                f"augment: {config.augment} is not allowed, allowed: None of data with shape {denoiser.shape}"
            )
        if config.augment is not None and not getattr(denoiser.network, "augmented", False):
            raise ValueError(
                f"augment: {config.augment} is not allowed of a {type(denoiser.network).__name__}, allowed: "
                "None; it is not `augmented`: what it is not told of it would draw too"
            )
        given = None if labels is None else tuple(np.shape(labels))
        if (given is None) != (denoiser.classes is None) or given not in (None, data.shape[:1]):
            raise ValueError(
                f"{len(data)} data points and a model of {denoiser.classes or 'no'} classes do not "
                f"fit {'no labels' if given is None else f'labels of shape {given}'}"
            )
        if ranks.world_size > 1 and any(isinstance(m, _NormBase) for m in denoiser.modules()):
            raise ValueError(
                "a network with batch normalisation is not allowed in several processes"
            )
        self.denoiser, self.config, self.seed = denoiser, config, seed
        self.true_score, self.ranks = true_score, ranks
        size = config.batch_size // config.parts
        self.parts = {n: slice(n * size, (n + 1) * size) for n in ranks.share(config.parts)}
        each = config.batch_size // ranks.world_size
        self.share = slice(ranks.rank * each, (ranks.rank + 1) * each)
        self.device, self.dtype = denoiser.data_mean.device, denoiser.data_mean.dtype
        self.data = _near(data, self.device)
        self.labels = denoiser.checked(labels, 1.0)
        as_channels_last(denoiser)
        if config.objective in ("sliced", "implicit"):
            allow_second_derivatives(denoiser)
        self.averaged = {
            average: copy.deepcopy(denoiser).eval().requires_grad_(False)
            for average in config.averages
        }
        self.uncertainty = Uncertainty(seed).to(self.device) if config.uncertainty else None
        denoiser.train()
        trained = [weight.requires_grad for weight in denoiser.parameters()]
        self.parameters = list(compress(denoiser.parameters(), trained))
        if not self.parameters:
            raise ValueError(
                "train: all weights of the model are frozen, as a loaded one's are, allowed: "
                "model.requires_grad_(True)"
            )
        self.means = {
            average: list(compress(mean.parameters(), trained))
            for average, mean in self.averaged.items()
        }
        if self.uncertainty is not None:
            # Averaged as all weights are, since these have to survive a stop as all do; nobody sees it.
            more = list(self.uncertainty.parameters())
            self.parameters += more
            for means in self.means.values():
                means += [nn.Parameter(one.detach().clone(), requires_grad=False) for one in more]
        self.owners = _owners(self.parameters, ranks.world_size) if sharded else []
        # The weights of which this process keeps the state, by their numbers.
        self.mine = {
            index: weight
            for index, weight in enumerate(self.parameters)
            if not self.owners or self.owners[index] == ranks.rank
        }
        # Of a network of one's own: what batch normalisation counts, say. It is not averaged.
        self.buffers = list(denoiser.buffers())
        # A group: of fewer weights than processes some have none.
        own = {"params": list(self.mine.values())}
        self.optimiser = torch.optim.Adam([own], lr=config.learning_rate, fused=True)
        self.batches = _Batches(len(data), config.batch_size, seed, self.data.device)
        rows = min(config.log_every, config.steps)
        self.losses = torch.zeros(rows, config.batch_size, device=self.device)
        self.times = torch.zeros_like(self.losses)
        self.grad_norms = torch.zeros(rows, device=self.device)
        self.curves: list[dict[str, float]] = []
        self.step = 0
        self.bfloat16 = resolve_precision(config.precision, self.device) == "bfloat16"
        if config.compile:
            denoiser.network.compile()
        for average in self.means:
            self._shrink(average)

    def advance(
        self, checkpoints: Checkpoints | None = None, observer: Observer | None = None
    ) -> tuple[bool, bool, bool]:
        """Take one step; return whether any process asks for a stop, a checkpoint, a look, after it."""
        config, step = self.config, self.step
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        stop = due = False
        if checkpoints is not None:
            stop, due = checkpoints.stop(), self.ranks.first and checkpoints.due(step + 1)
        answer = self.ranks.any(stop, due, observer is not None and observer.asks())
        batch = self._batch()
        row = step % config.log_every
        self.times[row] = batch.t
        tree = Tree()
        for number, inside in self.parts.items():
            masks = derive_seed(self.seed, "dropout", step * config.parts + number)
            seed_default_generators(masks, self.device)
            for weight in self.parameters:
                weight.grad = None
            loss = self._loss(batch, inside)
            total = loss
            if self.uncertainty is not None:
                ratio = self.denoiser.process.ratio(batch.t[inside])
                total = self.uncertainty.balanced(loss, ratio.float())
            (total.sum() / config.batch_size).backward()  # type: ignore[no-untyped-call]
            self.losses[row, inside] = loss.detach()
            if config.parts > 1:
                tree.add([_gradient(weight) for weight in self.parameters])
        if config.parts > 1:
            self._exchange(tree.total())
        largest = math.inf if config.clip_norm is None else config.clip_norm
        self.grad_norms[row] = nn.utils.clip_grad_norm_(self.parameters, largest)
        self.optimiser.step()
        with torch.no_grad():  # or the averages would remember every step's graph
            self._fill(self.parameters)
            own = list(self.mine.values())
            for average, means in self.means.items():
                decay = _decay(average, step, config)
                if own:
                    mine = [means[index] for index in self.mine]
                    torch._foreach_lerp_(mine, own, 1 - decay)  # type: ignore[arg-type]
            self._share_buffers()
        self.step += 1
        stop, due, seen = answer()
        return stop, due, seen

    def _fill(self, weights: Sequence[Tensor]) -> None:
        """Give all weights the values that they have in the process that keeps their state."""
        for rank in range(self.ranks.world_size if self.owners else 0):
            self.ranks.spread(list(compress(weights, [one == rank for one in self.owners])), rank)

    @torch.no_grad()
    def filled(self, average: float) -> Denoiser:
        """Return an average, all of whose weights are there from now on."""
        means = self.means[average]
        for mean, weight in zip(means, self.parameters, strict=True):
            if mean.shape != weight.shape:
                mean.data = torch.empty_like(weight)
        self._fill(means)
        return self.averaged[average]

    @contextmanager
    def whole(self, average: float) -> Iterator[Denoiser]:
        """Yield an average, all of whose weights are there meanwhile."""
        yield self.filled(average)
        self._shrink(average)

    def _shrink(self, average: float) -> None:
        """Let go of an average's weights of which another process keeps the state."""
        for index, mean in enumerate(self.means[average]):
            if index not in self.mine:
                mean.data = mean.new_empty(0)

    def _exchange(self, gradients: list[Tensor]) -> None:
        """Give every weight the sum of all processes' gradients."""
        if self.ranks.world_size > 1:
            flat = self.ranks.total(torch.cat([gradient.flatten() for gradient in gradients]))
            sums = torch.split(flat, [gradient.numel() for gradient in gradients])
            # Into the gradients' own memory formats, by which the optimiser's and the norm's bits go.
            shaped = [one.view(own.shape) for one, own in zip(sums, gradients, strict=True)]
            torch._foreach_copy_(gradients, shaped)
        for weight, gradient in zip(self.parameters, gradients, strict=True):
            weight.grad = gradient

    def _share_buffers(self) -> None:
        for mean in self.averaged.values():
            for copied, buffer in zip(mean.buffers(), self.buffers, strict=True):
                copied.copy_(buffer)

    def _loss(self, batch: _Batch, inside: slice) -> Tensor:
        """Return the losses of one part of a batch."""
        denoiser, config = self.denoiser, self.config
        image = len(denoiser.shape) == 3

        def own(whole: Tensor | None) -> Tensor | None:
            return None if whole is None else whole[inside]

        def laid(x: Tensor) -> Tensor:
            return x.contiguous(memory_format=torch.channels_last) if image else x

        pixels = self.data[batch.index[inside]].to(self.device)
        x_0 = to_unit(pixels, denoiser.levels)
        if batch.bins is not None:
            x_0 = x_0 + batch.bins[inside]
        if batch.mirrored is not None:
            x_0 = torch.where(batch.mirrored[inside, None, None, None], x_0.flip(3), x_0)
        changes = own(batch.augmentation)
        if changes is not None:
            x_0 = augment.augmented(x_0, changes)
            changes = augment.condition(changes).to(self.dtype)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return score_matching_loss(
                config.objective,
                denoiser.along(denoiser.process, own(batch.labels), augmentation=changes),
                laid(x_0.to(self.dtype)),
                batch.t[inside],
                laid(batch.noise[inside]),
                denoiser.process,
                batch.weight[inside],
                probe=own(batch.probe),
                true_score=self.true_score,
            )

    def _batch(self) -> _Batch:
        """Return what this step draws, for the whole batch in every process."""
        config, process, size = self.config, self.denoiser.process, self.config.batch_size
        shape = (size, *self.denoiser.shape)
        draw = generator(self.seed, "step", self.step, self.device)
        index = self.batches(self.step)
        bins = mirrored = labels = probe = augmentation = None
        if config.dequantise and self.denoiser.levels is not None:
            inside = torch.rand(shape, generator=draw, device=self.device) - 0.5
            bins = bin_width(self.denoiser.levels) * inside
        if config.flip and len(shape) == 4:
            mirrored = torch.rand(size, generator=draw, device=self.device) < 0.5
        t, factor = config.times.draw(size, process, draw)
        noise = torch.randn(shape, generator=draw, device=self.device)
        if self.labels is not None:
            hidden = torch.rand(size, generator=draw, device=self.device)
            of_data = self.labels[index.to(self.device)]
            labels = of_data.masked_fill(hidden < (config.label_dropout or 0.0), -1)
        # Drawn in single precision whatever the model's: the same seed is the same data and noise.
        t, noise, factor = (one.to(self.dtype) for one in (t, noise, factor))
        weight = factor * denoising_weight(t, process, config.weighting, self.denoiser.std)
        if config.objective == "sliced":
            signs = generator(self.seed, "probe", self.step, self.device)
            made = torch.randint(2, shape, generator=signs, device=self.device, dtype=self.dtype)
            probe = 2 * made - 1
        if config.augment is not None:
            augmenting = generator(self.seed, "augment", self.step, self.device)
            augmentation = augment.draw(size, config.augment, augmenting)
        return _Batch(index, t, noise, weight, bins, mirrored, labels, probe, augmentation)

    def log(self) -> dict[str, float]:
        """Add a point to the curves and return it."""
        self.check()
        rows = self._rows()
        point = _curve_point(self.losses[:rows], self.times[:rows], self.step)
        rate = learning_rate(self.step - 1, self.config)
        norm = float(self.grad_norms[rows - 1])
        self.curves.append(point | {"grad_norm": norm, "learning_rate": rate})
        return self.curves[-1]

    def check(self) -> None:
        """Raise FloatingPointError if a loss since the last point, or the gradient, is not finite."""
        rows = self._rows()
        if self.ranks.world_size > 1:
            gathered = self.ranks.gathered(self.losses[:rows, self.share])
            self.losses[:rows] = torch.cat([*gathered], dim=1)
        losses, norms = self.losses[:rows], self.grad_norms[:rows]
        wrong = ~(losses.isfinite().all(1) & norms.isfinite())
        if not bool(wrong.any()):
            return
        row = int(wrong.nonzero()[0])
        step = self.step - rows + row + 1
        what = f"gradient of step {step}"
        if not bool(losses[row].isfinite().all()):
            time = float(self.times[row][~losses[row].isfinite()][0])
            what = f"loss of step {step} at t = {time:.4g}"
        rate = learning_rate(step - 1, self.config)
        raise FloatingPointError(
            f"non-finite {what}, learning rate {rate:.3g}, found after step {self.step}"
        )

    def _rows(self) -> int:
        """Return the number of steps since the last point of the curves."""
        return (self.step - 1) % self.config.log_every + 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the state's tensors by name, of all processes in the first one."""
        named = {"losses": self.losses, "times": self.times, "grad_norms": self.grad_norms}
        named |= {f"buffers.{index}": buffer for index, buffer in enumerate(self.buffers)}
        named |= {f"weights.{index}": weight for index, weight in enumerate(self.parameters)}
        own = {}
        for index, weight in self.mine.items():
            for average, means in self.means.items():
                own[f"averaged_{average:.15g}.{index}"] = means[index]
            for name, value in self.optimiser.state[weight].items():
                own[f"{name}.{index}"] = value
        return named | (self.ranks.collected(own) if self.owners else own)

    @torch.no_grad()
    def restore(
        self, step: int, tensors: Iterable[tuple[str, Tensor]], info: dict[str, Any]
    ) -> None:
        """Go back to the state after `step` steps, of which the other two arguments are the rest."""
        # A checkpoint sorts what it says by name.
        self.step = step
        self.curves = [{name: point[name] for name in _POINT} for point in info["curves"]]
        own = {"losses": self.losses, "times": self.times, "grad_norms": self.grad_norms}
        own |= {f"buffers.{index}": buffer for index, buffer in enumerate(self.buffers)}
        own |= {f"weights.{index}": weight for index, weight in enumerate(self.parameters)}
        for average, means in self.means.items():
            own |= {f"averaged_{average:.15g}.{index}": means[index] for index in self.mine}
        for name, value in tensors:
            if name in own:
                own[name].copy_(value)
                continue
            kind, _, index = name.rpartition(".")
            weight = self.mine.get(int(index))
            if weight is not None and kind in _ADAM:  # none of what the network does not use
                made = torch.empty_like(value if kind == "step" else weight)
                self.optimiser.state[weight][kind] = made.copy_(value)
        self._share_buffers()


def _owners(weights: Sequence[Tensor], world_size: int) -> list[int]:
    """Return which process keeps each weight's state: the largest first, each by who has least."""
    held = [0] * world_size
    owners = [0] * len(weights)
    for index in sorted(range(len(weights)), key=lambda one: -weights[one].numel()):
        owners[index] = held.index(min(held))
        held[owners[index]] += weights[index].numel()
    return owners


def _gradient(weight: nn.Parameter) -> Tensor:
    """Return a weight's gradient, zero if the loss does not use it."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _near(data: Tensor, device: torch.device) -> Tensor:
    """Return `data` on the device, or as they are if they would take half of a GPU's free memory."""
    if device.type == "cuda" and data.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return data
    return data.to(device)


def _curve_point(losses: Tensor, times: Tensor, step: int) -> dict[str, float]:
    point = {"step": step, "loss": float(losses.mean())}
    band = (times * BANDS).long().clamp(max=BANDS - 1)
    for index, name in enumerate(_BAND_LOSSES):
        inside = losses[band == index]
        point[name] = float(inside.mean()) if len(inside) else math.nan
    return point
