"""The training loop: denoising score matching with Adam, warm-up, clipping and an averaged copy.

All randomness of step k comes from (seed, k), the order of the data from (seed, epoch): a run that
goes on from a checkpoint is the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from scoremodel.checkpoint import Checkpoints, Stopped
from scoremodel.data.scale import dequantise
from scoremodel.denoiser import Denoiser, as_channels_last
from scoremodel.loss import Weighting, denoising_loss, denoising_weight
from scoremodel.rng import derive_seed, generator
from scoremodel.times import Stratified, Times

__all__ = ["BANDS", "TrainingConfig", "learning_rate", "train"]

BANDS = 4
"""The curves show the loss by noise band: t in quarters, band 1 the least noisy."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a denoiser is trained.

    Args:
        steps: number of optimiser steps.
        batch_size: data points per step.
        learning_rate: Adam's, after warm-up.
        schedule: "constant", or "cosine" down to zero at the last step.
        warmup_steps: steps over which the learning rate rises linearly from zero.
        clip_norm: largest norm of the whole gradient.
        ema_decay: decay d of the averaged weights; at step n min(d, (1 + n) / (10 + n)) is used, so
            that a short training is not averaged with its start.
        weighting: see `denoising_weight`.
        times: distribution of the times, see `scoremodel.times`.
        label_dropout: probability with which a data point's class is hidden from a class-conditional
            model, so that it learns the distribution of all classes too (classifier-free guidance).
        flip: whether images are mirrored at random.
        log_every: steps between two points of the curves.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 2e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    weighting: Weighting = "sigma2"
    times: Times = field(default_factory=Stratified)
    label_dropout: float = 0.1
    flip: bool = False
    log_every: int = 50


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of `step` (0-based): linear warm-up, then the schedule."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        warmup *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warmup


class _Batches:
    """Step k's batch: positions k·B … of an endless sequence of epochs, each shuffled by (seed, epoch)."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self.orders:
            self.orders = {e: order for e, order in self.orders.items() if e == epoch - 1}
            shuffle = generator(self.seed, "order", epoch)
            self.orders[epoch] = torch.randperm(self.count, generator=shuffle)
        return self.orders[epoch]

    def __call__(self, step: int) -> Tensor:
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while position < end:
            epoch, offset = divmod(position, self.count)
            parts.append(self._order(epoch)[offset : offset + end - position])
            position += len(parts[-1])
        return torch.cat(parts)


@torch.random.fork_rng()
def train(
    denoiser: Denoiser,
    data: Tensor,
    config: TrainingConfig,
    seed: int,
    progress: bool = False,
    labels: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Denoiser, list[dict[str, float]]]:
    """Train `denoiser` in place and return its averaged copy with the training curves.

    Step k is a function of (seed, k) and of the state after step k − 1, so a run that goes on from a
    checkpoint ends with the same bits as one that was never interrupted.

    Args:
        denoiser: the model, on the device to train on.
        data: grey levels (uint8) or real values with shape (N, *denoiser.shape).
        config: how to train.
        seed: seed of data order, times, noise and dropout.
        progress: whether to show a progress bar with the loss and the time left.
        labels: class numbers with shape (N,), which a class-conditional model needs.
        checkpoints: where to keep the state, and to go on from; None keeps none.

    Returns:
        The denoiser with exponentially averaged weights, in evaluation mode, and one dictionary per
        `log_every` steps: step, loss, loss_band_1 … loss_band_4, grad_norm, learning_rate, the
        losses averaged since the last one.

    Raises:
        ValueError: if the data's shape is not the model's, or labels are missing, or given to an
            unconditional model.
        FloatingPointError: if a loss is not finite, naming step, noise level and learning rate; the
            last checkpoint is from before it.
        Stopped: if the checkpoints' `stop` says so; the state is saved.
    """
    run = _Run(denoiser, data, labels, config, seed)
    if checkpoints is not None and (found := checkpoints.latest(run.device)) is not None:
        run.restore(*found)
    with tqdm(
        total=config.steps, initial=run.step, desc="train", unit="step", disable=not progress
    ) as bar:
        while run.step < config.steps:
            run.advance()
            if run.step % config.log_every == 0 or run.step == config.steps:
                bar.set_postfix(loss=f"{run.log():.4f}")
            bar.update()
            if checkpoints is None or run.step == config.steps:
                continue
            stop = checkpoints.stop()
            if stop or checkpoints.due(run.step):
                run.check()
                checkpoints.save(run.step, run.tensors(), {"curves": run.curves})
            if stop:
                raise Stopped(
                    f"stopped after step {run.step} of {config.steps}, whose state is in "
                    f"{checkpoints.folder}; the same command goes on from there"
                )
    return run.averaged, run.curves


class _Run:
    """A training run between two steps."""

    def __init__(
        self,
        denoiser: Denoiser,
        data: Tensor,
        labels: Tensor | None,
        config: TrainingConfig,
        seed: int,
    ) -> None:
        if data.shape[1:] != denoiser.shape:
            raise ValueError(
                f"data of shape {tuple(data.shape)} do not fit a model of {denoiser.shape}"
            )
        if (labels is None) != (denoiser.classes is None) or (
            labels is not None and labels.shape != data.shape[:1]
        ):
            raise ValueError(
                f"{len(data)} data points and a model of {denoiser.classes or 'no'} classes do not "
                f"fit {'no labels' if labels is None else f'labels of shape {tuple(labels.shape)}'}"
            )
        self.denoiser, self.config, self.seed = denoiser, config, seed
        self.device = denoiser.data_mean.device
        self.data = data.to(self.device)
        self.labels = denoiser.checked(labels, 1.0)
        as_channels_last(denoiser)
        self.averaged = copy.deepcopy(denoiser).eval().requires_grad_(False)
        denoiser.train()
        self.parameters = list(denoiser.parameters())
        self.averaged_parameters = list(self.averaged.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate, fused=True)
        self.batches = _Batches(len(data), config.batch_size, seed)
        self.losses = torch.zeros(config.log_every, config.batch_size, device=self.device)
        self.times = torch.zeros_like(self.losses)
        self.grad_norm = torch.zeros((), device=self.device)
        self.curves: list[dict[str, float]] = []
        self.step = 0

    def advance(self) -> None:
        """Take one step."""
        config, denoiser, step = self.config, self.denoiser, self.step
        process, image = denoiser.process, len(denoiser.shape) == 3
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        draw = generator(self.seed, "step", step, self.device)
        index = self.batches(step).to(self.device)
        x_0 = dequantise(self.data[index], denoiser.levels)
        if config.flip and image:
            mirrored = torch.rand(len(x_0), generator=draw, device=self.device) < 0.5
            x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)
        t, factor = config.times.draw(len(x_0), process, draw)
        noise = torch.randn(x_0.shape, generator=draw, device=self.device)
        if image:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)
            noise = noise.contiguous(memory_format=torch.channels_last)
        shown = None
        if self.labels is not None:
            hidden = torch.rand(len(x_0), generator=draw, device=self.device)
            shown = self.labels[index].masked_fill(hidden < config.label_dropout, -1)
        torch.manual_seed(derive_seed(self.seed, "dropout", step))
        weight = factor * denoising_weight(t, process, config.weighting, denoiser.std)
        denoise = denoiser.along(process, shown)
        loss = denoising_loss(denoise, x_0, t, noise, process, weight)
        self.optimiser.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        self.grad_norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimiser.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averaged_parameters, self.parameters, 1 - decay)  # type: ignore[arg-type]
        row = step % config.log_every
        self.losses[row], self.times[row] = loss.detach(), t
        self.step += 1

    def log(self) -> float:
        """Add a point to the curves and return its loss."""
        self.check()
        rows = self._rows()
        point = _curve_point(self.losses[:rows], self.times[:rows], self.step)
        rate = learning_rate(self.step - 1, self.config)
        self.curves.append(point | {"grad_norm": float(self.grad_norm), "learning_rate": rate})
        return point["loss"]

    def check(self) -> None:
        """Raise FloatingPointError if a loss since the last point, or the gradient, is not finite."""
        rows = self._rows()
        wrong = ~self.losses[:rows].isfinite()
        if not bool(wrong.any()) and bool(self.grad_norm.isfinite()):
            return
        where = "in the gradient"
        if bool(wrong.any()):
            row = int(wrong.any(1).nonzero()[0])
            time = float(self.times[row][wrong[row]][0])
            where = f"of step {self.step - rows + row + 1} at t = {time:.4g}"
        rate = learning_rate(self.step - 1, self.config)
        raise FloatingPointError(
            f"non-finite loss {where}, found after step {self.step}, learning rate {rate:.3g}"
        )

    def _rows(self) -> int:
        """Return the number of steps since the last point of the curves."""
        return (self.step - 1) % self.config.log_every + 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the state's tensors by name."""
        named = {"losses": self.losses, "times": self.times}
        for index, (weight, mean) in enumerate(
            zip(self.parameters, self.averaged_parameters, strict=True)
        ):
            named |= {f"weights.{index}": weight, f"averaged.{index}": mean}
            for name, value in self.optimiser.state[weight].items():
                named[f"{name}.{index}"] = value
        return named

    def restore(self, step: int, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Go back to the state after `step` steps, of which the other two arguments are the rest."""
        self.step, self.curves = step, info["curves"]
        self.losses.copy_(tensors["losses"])
        self.times.copy_(tensors["times"])
        names = ("exp_avg", "exp_avg_sq", "step")
        with torch.no_grad():
            for index, (weight, mean) in enumerate(
                zip(self.parameters, self.averaged_parameters, strict=True)
            ):
                weight.copy_(tensors[f"weights.{index}"])
                mean.copy_(tensors[f"averaged.{index}"])
                self.optimiser.state[weight] = {
                    name: torch.empty_like(weight if name != "step" else tensors["step.0"]).copy_(
                        tensors[f"{name}.{index}"]
                    )
                    for name in names
                }


def _curve_point(losses: Tensor, times: Tensor, step: int) -> dict[str, float]:
    point = {"step": step, "loss": float(losses.mean())}
    band = (times * BANDS).long().clamp(max=BANDS - 1)
    for index in range(BANDS):
        inside = losses[band == index]
        point[f"loss_band_{index + 1}"] = float(inside.mean()) if len(inside) else math.nan
    return point
