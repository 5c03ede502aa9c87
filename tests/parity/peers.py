"""What both parity tests need: our samplers on given noise, with the exact denoiser of a mixture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scoremodel.oracles import GaussianMixture
from scoremodel.processes.base import Process
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.sampling import sample

SHAPE = (6, 3)
MIXTURE = GaussianMixture([[-0.6, -0.6, 0.1], [0.5, 0.4, 0.0]], [0.2, 0.3], [0.7, 0.3])


def standard_normal(seed: int = 0) -> Iterator[Tensor]:
    """Yield noise with shape SHAPE without end, the same for the same seed."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=draw, dtype=torch.float64)


def denoised(x_t: Tensor, t: float | Tensor, process: Process) -> Tensor:
    """Return the mixture's E[x_0 | x_t] at one time for all rows."""
    return MIXTURE.denoised(x_t, torch.as_tensor(t, dtype=torch.float64).expand(len(x_t)), process)


def ours(sampler: Sampler, process: Process, x: Tensor) -> Tensor:
    """Return the last state of our sampler from x, on the noise of `standard_normal`."""
    noise = standard_normal()
    found = sample(
        lambda x, t: MIXTURE.denoised(x, t, process), sampler, len(x), 0,
        process=process, x_init=x, noise=lambda *_: next(noise),
    )  # fmt: skip
    return found.x
