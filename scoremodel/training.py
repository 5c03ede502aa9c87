"""The training loop: denoising score matching with Adam, warm-up, clipping and an averaged copy.

All randomness of step k comes from (seed, k), the order of the data from (seed, epoch).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

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
) -> tuple[Denoiser, list[dict[str, float]]]:
    """Train `denoiser` in place and return its averaged copy with the training curves.

    Args:
        denoiser: the model, on the device to train on.
        data: grey levels (uint8) or real values with shape (N, *denoiser.shape).
        config: how to train.
        seed: seed of data order, times, noise and dropout.
        progress: whether to show a progress bar with the loss and the time left.
        labels: class numbers with shape (N,), which a class-conditional model needs.

    Returns:
        The denoiser with exponentially averaged weights, in evaluation mode, and one dictionary per
        `log_every` steps: step, loss, loss_band_1 … loss_band_4, grad_norm, learning_rate, the
        losses averaged since the last one.

    Raises:
        ValueError: if the data's shape is not the model's, or labels are missing, or given to an
            unconditional model.
        FloatingPointError: if a loss is not finite, naming step, noise level and learning rate.
    """
    process, device = denoiser.process, denoiser.data_mean.device
    if data.shape[1:] != denoiser.shape:
        raise ValueError(
            f"data of shape {tuple(data.shape)} do not fit a model of {denoiser.shape}"
        )
    if (labels is None) != (denoiser.classes is None) or (
        labels is not None and labels.shape != data.shape[:1]
    ):
        raise ValueError(
            f"{len(data)} data points and a model of {denoiser.classes or 'no'} classes do not fit "
            f"{'no labels' if labels is None else f'labels of shape {tuple(labels.shape)}'}"
        )
    data = data.to(device)
    labels = denoiser.checked(labels, 1.0)
    image = len(denoiser.shape) == 3
    as_channels_last(denoiser)
    averaged = copy.deepcopy(denoiser).eval().requires_grad_(False)
    denoiser.train()
    parameters = list(denoiser.parameters())
    averaged_parameters = list(averaged.parameters())
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    batches = _Batches(len(data), config.batch_size, seed)
    losses = torch.zeros(config.log_every, config.batch_size, device=device)
    times = torch.zeros_like(losses)
    curves: list[dict[str, float]] = []

    bar = tqdm(range(config.steps), desc="train", unit="step", disable=not progress)
    for step in bar:
        rate = learning_rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        draw = generator(seed, "step", step, device)
        index = batches(step).to(device)
        x_0 = dequantise(data[index], denoiser.levels)
        if config.flip and image:
            mirrored = torch.rand(len(x_0), generator=draw, device=device) < 0.5
            x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)
        t, factor = config.times.draw(len(x_0), process, draw)
        noise = torch.randn(x_0.shape, generator=draw, device=device)
        if image:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)
            noise = noise.contiguous(memory_format=torch.channels_last)
        shown = None
        if labels is not None:
            hidden = torch.rand(len(x_0), generator=draw, device=device) < config.label_dropout
            shown = labels[index].masked_fill(hidden, -1)
        torch.manual_seed(derive_seed(seed, "dropout", step))
        weight = factor * denoising_weight(t, process, config.weighting, denoiser.std)
        denoise = denoiser.along(process, shown)
        loss = denoising_loss(denoise, x_0, t, noise, process, weight)
        optimiser.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        grad_norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimiser.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged_parameters, parameters, 1 - decay)  # type: ignore[arg-type]

        row = step % config.log_every
        losses[row], times[row] = loss.detach(), t
        if row == config.log_every - 1 or step == config.steps - 1:
            point = _curve_point(losses[: row + 1], times[: row + 1], step + 1)
            if not math.isfinite(point["loss"] + float(grad_norm)):
                worst = times[: row + 1][~losses[: row + 1].isfinite()].tolist()[:1]
                where = f" at t = {worst[0]:.4g}" if worst else " in the gradient"
                raise FloatingPointError(
                    f"non-finite loss by step {step + 1}{where}, learning rate {rate:.3g}"
                )
            curves.append(point | {"grad_norm": float(grad_norm), "learning_rate": rate})
            bar.set_postfix(loss=f"{point['loss']:.4f}")
    return averaged, curves


def _curve_point(losses: Tensor, times: Tensor, step: int) -> dict[str, float]:
    point = {"step": step, "loss": float(losses.mean())}
    band = (times * BANDS).long().clamp(max=BANDS - 1)
    for index in range(BANDS):
        inside = losses[band == index]
        point[f"loss_band_{index + 1}"] = float(inside.mean()) if len(inside) else math.nan
    return point
