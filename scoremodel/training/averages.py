"""Averages of the weights over a training: by a half-life, or by a width relative to the training's length.

A power-function average (Karras, Aittala, Lehtinen, Hellsten, Aila, Laine: Analyzing and Improving the
Training Dynamics of Diffusion Models, 2024, arXiv:2312.02696, section 3 and appendix C) weighs the
weights of step τ by

    p(τ) = (γ + 1) τ^γ / t^(γ+1),  τ ≤ t,     w̄(t) = β w̄(t − 1) + (1 − β) w(t),  β = (1 − 1/t)^(γ+1),

so that it grows with the training and forgets its start. Its standard deviation is the share σ of t
that names it. Any profile is nearly a linear combination of stored averages at several times, whose
coefficients follow by least squares: an average of another width is had after the training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoremodel.bounds import Count, Width, check_arguments, check_bounds
from scoremodel.denoiser import Denoiser
from scoremodel.io.denoisers import load, save
from scoremodel.io.weights import read_weights

__all__ = ["Snapshots", "exponent", "posthoc", "power_decay"]

_NAME = "step-{:010}.safetensors"


def exponent(std: float) -> float:
    """Return γ of the relative width σ: the largest root of σ² (γ + 2)² (γ + 3) = γ + 1."""
    inverse = std**-2
    gamma = 1 / std  # above the root, where the cubic is convex: Newton's steps go down to it
    while True:
        value = ((gamma + 7) * gamma + 16 - inverse) * gamma + 12 - inverse
        below = gamma - value / ((3 * gamma + 14) * gamma + 16 - inverse)
        if not below < gamma:
            return gamma
        gamma = below


def power_decay(std: float, step: int) -> float:
    """Return β = (1 − 1/t)^(γ+1), the share of a power-function average that is kept at step t, from 1."""
    return float((1 - 1 / step) ** (exponent(std) + 1))


def posthoc(
    snapshots: Sequence[tuple[float, float]], std: Width, step: float | None = None
) -> list[float]:
    """Return the coefficients with which stored averages sum up to nearly the one of another width.

    They minimise ∫ (Σ_i c_i p_i(τ) − p(τ))² dτ, so that A c = b with the inner products

        ⟨p_i, p_j⟩ = (γ_i + 1) (γ_j + 1) min(t_i, t_j)^(γ_i+γ_j+1)
                     / ((γ_i + γ_j + 1) t_i^(γ_i+1) t_j^(γ_j+1)).

    Karras et al. 2024, arXiv:2312.02696, appendix C.

    Args:
        snapshots: the step and the relative width of each stored average.
        std: the relative width that is wanted.
        step: the step at which, one of the snapshots': a profile ends there, between two of them none
            does. None is the last one's.

    Returns:
        A coefficient for each snapshot, 0 for those after the step.

    Raises:
        ValueError: if there is no snapshot of that step, or the width is not allowed.
    """
    check_arguments("posthoc", posthoc, {"std": std})
    there = [t for t, _ in snapshots]
    at = max(there, default=0.0) if step is None else step
    used = [index for index, t in enumerate(there) if t <= at]
    if at not in there:
        raise ValueError(f"posthoc: step: {at:g} is not allowed, allowed: that of a snapshot")
    steps = np.array([*(snapshots[index][0] for index in used), at], dtype=np.float64)
    gammas = np.array([*(exponent(snapshots[index][1]) for index in used), exponent(std)])
    t, other = steps[:, None], steps[None]
    gamma, of_other = gammas[:, None], gammas[None]
    least = np.minimum(t, other)
    # Of functions whose squares integrate to 1, or large steps would make small numbers.
    products = (least / t) ** (gamma + 0.5) * (least / other) ** (of_other + 0.5)
    products *= np.sqrt((2 * gamma + 1) * (2 * of_other + 1)) / (gamma + of_other + 1)
    norms = (gammas + 1) / np.sqrt((2 * gammas + 1) * steps)
    solved = np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=None)[0]
    coefficients = [0.0] * len(snapshots)
    for index, value in zip(used, solved * norms[-1] / norms[:-1], strict=True):
        coefficients[index] = float(value)
    return coefficients


@dataclass(frozen=True)
class Snapshots:
    """A folder with a training's power-function averages at several of its steps.

    What is there of a training that goes on is written again with the same bytes.

    Args:
        folder: of this training alone, made when it is first needed.
        every: steps between two snapshots.
    """

    folder: str | os.PathLike[str]
    every: Count

    def __post_init__(self) -> None:
        check_bounds(self)

    def keep(self, step: int, averaged: Mapping[float, Denoiser]) -> None:
        """Write the averages after `step` steps, by their width.

        Raises OSError if the file cannot be written, naming it.
        """
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        save(averaged, Path(self.folder, _NAME.format(step)), {"step": step})

    def reconstruct(
        self,
        std: Width,
        step: int | None = None,
        **options: Any,
    ) -> Denoiser:
        """Return the denoiser with an average of any width, from all that is stored until a step.

        Args:
            std: the relative width σ; those between the stored ones are nearest to the truth.
            step: the step after which, one of the snapshots'; None is the last one's.
            **options: device, network and process, see `scoremodel.io.denoisers.load`.

        Returns:
            The denoiser, in evaluation mode.

        Raises:
            ValueError: if there is no snapshot of that step, or as `load`.
        """
        paths = sorted(Path(self.folder).glob(_NAME.format(0).replace("0" * 10, "[0-9]*")))
        names = read_weights(paths[-1])[1]["ema_stds"] if paths else []
        kept = [(path, name) for path in paths for name in names]
        steps = [int(path.stem.removeprefix("step-")) for path, _ in kept]
        snapshots = [(at, float(name)) for at, (_, name) in zip(steps, kept, strict=True)]
        coefficients = posthoc(snapshots, std, step)
        used = {path for (path, _), c in zip(kept, coefficients, strict=True) if c}
        made = load(max(used), **options)
        sums = {
            name: torch.zeros_like(weight, dtype=torch.float64)
            for name, weight in made.named_parameters()
        }
        for path in sorted(used):
            tensors, _ = read_weights(path, made.data_mean.device)
            for (of, name), c in zip(kept, coefficients, strict=True):
                for key, total in sums.items() if of == path else ():
                    total += c * tensors[f"{name}/{key}"].double()
        made.load_state_dict({key: total.to(made.data_mean) for key, total in sums.items()}, False)
        made.ema_std = std
        return made
