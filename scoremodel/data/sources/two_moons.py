"""Two interleaving half circles in the plane."""

from __future__ import annotations

import numpy as np

from scoremodel.bounds import NonNegative
from scoremodel.data.sources.base import SOURCES, Points, RawData, Seed, require_memory

__all__ = ["load_two_moons"]


@SOURCES.register("two_moons", gives="vectors")
def load_two_moons(count: Points, noise: NonNegative = 0.05, seed: Seed = 0) -> RawData:
    """Return `count` points of scikit-learn's two interleaving half circles, with Gaussian noise."""
    from sklearn.datasets import make_moons

    require_memory(count, dimension=2)
    points, labels = make_moons(count, noise=noise + 0.0, random_state=seed)  # numpy refuses −0
    return RawData(
        x=points.astype(np.float32),
        labels=labels.astype(np.int64),
        levels=None,
        classes=["upper", "lower"],
        held_out=None,
        source="scikit-learn make_moons, generated",
        licence="CC0",
    )
