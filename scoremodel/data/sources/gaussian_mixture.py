"""Points of a Gaussian mixture, whose score is known."""

from __future__ import annotations

import numpy as np

from scoremodel.bounds import NonNegative, Positive
from scoremodel.data.sources.base import (
    SOURCES,
    Points,
    RawData,
    Seed,
    require_memory,
    require_mixture,
)

__all__ = ["load_gaussian_mixture"]


@SOURCES.register("gaussian_mixture", gives="vectors")
def load_gaussian_mixture(
    means: list[list[float]],
    stds: list[Positive],
    weights: list[NonNegative],
    count: Points,
    seed: Seed = 0,
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
        ValueError: if the lists do not fit each other, or are no mixture's.
    """
    mixture = {"means": means, "stds": stds, "weights": weights}
    require_mixture(mixture)
    require_memory(count, len(means[0]))
    draw = np.random.default_rng(seed)
    probabilities = np.asarray(weights, float) / np.sum(weights)
    labels = draw.choice(len(means), size=count, p=probabilities)
    noise = draw.standard_normal((count, len(means[0])))
    points = np.asarray(means, float)[labels] + np.asarray(stds, float)[labels, None] * noise
    with np.errstate(over="ignore"):  # what is infinite then, RawData refuses
        x = points.astype(np.float32)
    return RawData(
        x=x,
        labels=labels.astype(np.int64),
        levels=None,
        classes=[str(index) for index in range(len(means))],
        held_out=None,
        source=f"mixture of {len(means)} Gaussians with weights {weights}, generated",
        licence="CC0",
        mixture=mixture,
    )
