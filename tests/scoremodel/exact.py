"""Gaussian data under an affine sampler: its law, read off from unit vectors in place of noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from scoremodel.processes.base import Process
from scoremodel.samplers.base import Call, Sampler
from scoremodel.samplers.sampling import sample

MEAN, STD = 0.4, 0.25


def values(process: Process, t: float) -> tuple[float, float, float]:
    """Return alpha, sigma and v, the variance of x_t, for data N(MEAN, STD²)."""
    at = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = float(process.alpha(at)), float(process.sigma(at))
    return alpha, sigma, alpha**2 * STD**2 + sigma**2


def denoiser(process: Process, times: Sequence[float]) -> Call:
    """Return the exact D = m + alpha s² (x − alpha m) / v of those times, its coefficients floats."""
    t = torch.tensor(times, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    slope = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    offset = MEAN * (1 - alpha * slope)
    table = dict(zip(times, zip(slope.tolist(), offset.tolist(), strict=True), strict=True))

    def denoise(x: Tensor, t: float | Tensor) -> Tensor:
        a, b = table[t if isinstance(t, float) else float(t[0])]
        return a * x + b

    return denoise


def ends(sampler: Sampler, process: Process, x: Tensor) -> Tensor:
    """Return where a sampler without noise takes x, the state at t = 1."""
    plan = sampler.plan(process)
    denoise = denoiser(process, sampler.call_times(plan))
    *_, last = sampler.states(plan, x, denoise, lambda: pytest.fail("it draws noise"))
    return last


class Law(NamedTuple):
    """x = mean + Σ_k coefficients[k] z_k with independent standard normal z, the prior's own first."""

    mean: float
    coefficients: np.ndarray

    @property
    def variance(self) -> float:
        return float(np.square(self.coefficients).sum())


def law(sampler: Sampler, process: Process, draws: int) -> Law:
    """Return what `sample` makes of N(MEAN, STD²), given that it draws noise at most so often.

    Row 0 gets zeros for noise, row k + 1 a one in the k-th draw and zeros else.
    """

    def units(draw: int, rows: range) -> Tensor:
        noise = torch.zeros(len(rows), 1, dtype=torch.float64)
        noise[draw + 1 : draw + 2] = 1.0
        return noise

    x = sample(
        denoiser(process, sampler.call_times(sampler.plan(process))),
        sampler,
        draws + 1,
        0,
        process=process,
        shape=(1,),
        dtype=torch.float64,
        mean=MEAN,
        batch_size=draws + 1,
        noise=units,
    ).x[:, 0].numpy()  # fmt: skip
    return Law(float(x[0]), x[1:] - x[0])


def assert_same(found: Law, expected: Law) -> None:
    """Check that two laws are the same but for rounding, and that one has no noise beyond."""
    scale = np.sqrt(expected.variance)
    known = len(expected.coefficients)
    assert abs(found.mean - expected.mean) < 1e-11
    np.testing.assert_allclose(
        found.coefficients[:known], expected.coefficients, rtol=1e-9, atol=1e-12 * max(1, scale)
    )
    assert not found.coefficients[known:].any()
