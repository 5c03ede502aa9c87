"""How a denoiser is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from scoremodel.bounds import Bounds, Count, Length, Share, Steps, Unit, Width, check_bounds
from scoremodel.precision import Precision
from scoremodel.training.loss import Objective, Weighting
from scoremodel.training.optimisers import Optimiser
from scoremodel.training.schedules import Schedule
from scoremodel.training.times.base import TIMES, Times

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a denoiser is trained; what is not said is as in the pipeline's `params.yaml`, or longer.

    The pipeline's default is a short training of small images. Here it is Adam's, at EDM's noise levels:
    other than there are `steps`, `parts`, `batch_size`, `optimiser`, `learning_rate`, `schedule`,
    `warmup_steps`, `ema_half_lives` and `times`.

    Args:
        steps: number of optimiser steps.
        batch_size: data points per step.
        parts: number of parts in which a batch is computed, a power of two: one after the other, where
            its activations do not fit into memory, or by as many processes as divide it, with the same
            bits (`scoremodel.ranks`). The parts have the whole batch's times and noise: another number
            of them changes rounding and the places of dropout.
        optimiser: "adam", or "muon" for the matrices inside the network, see
            `scoremodel.training.optimisers`.
        learning_rate: the largest, after warm-up.
        schedule: see `scoremodel.training.schedules`.
        warmup_steps: steps over which the learning rate rises linearly from zero.
        decay_steps: steps before the schedule inverse_sqrt decays; None is warmup_steps.
        clip_norm: largest norm of the whole gradient; None clips none.
        ema_stds: relative widths of power-function averages of the weights, kept after those by
            half-life, see `scoremodel.training.averages`.
        ema_half_lives: half-lives of the averaged weights, in data points seen. Of h and batches of
            B follows a decay d = 2^(−B / h), reached by `ema_ramp`.
        ema_ramp: how averaging begins, so that a short training is not averaged with its start. None
            is the decay min(d, (1 + n) / (10 + n)) at step n; a number is the largest half-life as a
            share of the data points seen, EDM's 0.05 (Karras et al. 2022, arXiv:2206.00364).
        objective: how the score is matched, see `scoremodel.training.loss`.
        weighting: see `denoising_weight`.
        uncertainty: whether the weighting is divided by what the loss at each noise level is found to
            be, see `scoremodel.training.uncertainty`; for the objective "denoising".
        times: distribution of the times, see `scoremodel.training.times`.
        dequantise: whether grey levels become uniform numbers in their bins, without which a density
            of the data does not exist (`scoremodel.likelihood`).
        label_dropout: probability with which a data point's class is hidden from a class-conditional
            model, so that it learns the distribution of all classes too (classifier-free guidance);
            None is 0.
        flip: whether images are mirrored at random.
        augment: the probability of each of EDM's augmentations of images (0.12 on CIFAR-10), of which
            the network is told, see `scoremodel.training.augment`; None makes none.
        precision: what the network computes in. Weights, loss and optimiser are float32 always.
            "auto" is bfloat16 on a CUDA card that has it in hardware, and float32 elsewhere.
        compile: whether torch compiles the network, which takes minutes before the first step.
        log_every: steps between two points of the curves.

    Raises:
        ValueError: if a value is not allowed, or two of them do not fit.
    """

    steps: Count
    batch_size: Annotated[int, Bounds(ge=1, le=2**20)] = 64
    parts: Annotated[int, Bounds(ge=1, le=2**20)] = 1
    optimiser: Optimiser = "adam"
    learning_rate: Annotated[float, Bounds(ge=1e-12, le=100)] = 2e-3
    schedule: Schedule = "cosine"
    warmup_steps: Annotated[int, Bounds(ge=0, le=10**9)] = 100
    decay_steps: Annotated[int, Bounds(ge=0, le=10**9)] | None = None
    clip_norm: Annotated[float, Bounds(ge=1e-6, le=1e12)] | None = 1.0
    ema_stds: Annotated[tuple[Width, ...], Length(0, 16, distinct=True)] = ()
    ema_half_lives: Annotated[
        tuple[Annotated[float, Bounds(ge=1, le=1e12)], ...], Length(0, 16, distinct=True)
    ] = (50_000.0,)
    ema_ramp: Annotated[float, Bounds(ge=1e-6, le=1e6)] | None = None
    objective: Objective = "denoising"
    weighting: Weighting = "edm"
    uncertainty: bool = False
    times: Times = field(default_factory=partial(TIMES.make, "log_normal"))
    dequantise: bool = False
    label_dropout: Share | None = None
    flip: bool = False
    augment: Unit | None = None
    precision: Precision = "auto"
    compile: bool = False
    log_every: Steps = 50

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.parts & (self.parts - 1) or self.batch_size % self.parts:
            raise ValueError(
                f"parts: {self.parts} is not allowed, allowed: a power of two that divides a batch of "
                f"{self.batch_size}"
            )
        if not self.averages:
            raise ValueError(
                "ema_half_lives: () is not allowed, allowed: a list of 1 to 16 items where ema_stds has none"
            )
        if self.decay_steps is not None and self.schedule != "inverse_sqrt":
            raise ValueError(
                f"decay_steps: {self.decay_steps} is not allowed, allowed: None with schedule "
                f"{self.schedule!r}, which has none"
            )
        if self.augment is not None and self.flip:
            raise ValueError(
                f"augment: {self.augment} is not allowed, allowed: None with flip, since it mirrors itself"
            )
        if self.uncertainty and self.objective != "denoising":
            raise ValueError(
                f"uncertainty: True is not allowed, allowed: False with objective {self.objective!r}, "
                "whose loss may be negative"
            )
        if self.compile and self.objective in ("sliced", "implicit"):
            raise ValueError(f"objective {self.objective!r} has second derivatives: compile not it")

    @property
    def averages(self) -> tuple[float, ...]:
        """What each average is named by: its half-life, at least 1, or its relative width, below that."""
        return (*self.ema_half_lives, *self.ema_stds)
