"""The Gaussian baseline: what no model may score worse than."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scoremodel.data.scale import quantise, to_unit

__all__ = ["gaussian_samples"]

_ROWS = 4096


def gaussian_samples(
    train: NDArray[np.generic], count: int, seed: int, levels: int | None
) -> NDArray[np.generic]:
    """Return samples of the Gaussian with the training data's mean and covariance.

        x = μ + 1/√(M − 1) Σ_i z_i (x_i − μ),    z ~ N(0, I_M)

    has them without a covariance matrix, which large images would make large.

    Args:
        train: grey levels with shape (M, C, H, W), or vectors with shape (M, D).
        count: number of samples.
        seed: seed of the samples.
        levels: number of grey levels, to which images are rounded; None for vectors.

    Returns:
        Samples with shape (count, *) and the training data's type.
    """
    import torch

    draw = np.random.default_rng(seed)
    blocks = [slice(first, first + _ROWS) for first in range(0, len(train), _ROWS)]

    def scaled(rows: slice) -> NDArray[np.float64]:
        block = torch.from_numpy(np.array(train[rows]))
        values = block if levels is None else to_unit(block, levels)
        return values.reshape(len(block), -1).double().numpy()

    mean = sum(scaled(rows).sum(axis=0) for rows in blocks) / len(train)
    drawn = np.zeros((count, mean.size))
    for rows in blocks:
        centred = scaled(rows) - mean
        drawn += draw.standard_normal((count, len(centred))) @ centred
    drawn = mean + drawn / np.sqrt(len(train) - 1)
    shaped = torch.from_numpy(drawn).reshape(count, *train.shape[1:])
    if levels is None:
        return shaped.numpy().astype(train.dtype)
    return quantise(shaped, levels).numpy()
