"""Points of a Gaussian mixture, whose score is known."""

from __future__ import annotations

import numpy as np

from scoremodel.data.sources.base import SOURCES, RawData

__all__ = ["load_gaussian_mixture"]


@SOURCES.register("gaussian_mixture", gives="vectors")
def load_gaussian_mixture(
    means: list[list[float]], stds: list[float], weights: list[float], count: int, seed: int = 0
) -> RawData:
    """Return `count` points of Σ_k w_k N(m_k, s_k² I), labelled by component.

    Args:
        means: component means with shape (K, D).
        stds: K standard deviations.
        weights: K weights; they are normalised to sum to one.
        count: number of points.
        seed: seed of the points.

    Returns:
        Vectors with shape (count, D).

    Raises:
        ValueError: if the lists do not fit each other.
    """
    if not len(means) == len(stds) == len(weights) or len({len(mean) for mean in means}) != 1:
        raise ValueError(
            f"means, stds and weights must have the same length and all means the same dimension, "
            f"got {len(means)}, {len(stds)} and {len(weights)}"
        )
    draw = np.random.default_rng(seed)
    probabilities = np.asarray(weights, float) / np.sum(weights)
    labels = draw.choice(len(means), size=count, p=probabilities)
    noise = draw.standard_normal((count, len(means[0])))
    points = np.asarray(means, float)[labels] + np.asarray(stds, float)[labels, None] * noise
    return RawData(
        x=points.astype(np.float32),
        labels=labels.astype(np.int64),
        levels=None,
        classes=[str(index) for index in range(len(means))],
        held_out=None,
        source=f"mixture of {len(means)} Gaussians with weights {weights}, generated",
        licence="CC0",
        mixture={"means": means, "stds": stds, "weights": weights},
    )
