"""The Fréchet distance between two sets of features, and the floor no model can get under.

    d² = |μ_1 − μ_2|² + tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^½)

Heusel et al. 2017, arXiv:1706.08500; computed by clean-fid (Parmar et al. 2022, arXiv:2104.11222).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floor", "frechet_distance", "real_floor"]

Features = NDArray[np.floating]


def frechet_distance(a: Features, b: Features) -> float:
    """Return the Fréchet distance between the Gaussians fitted to two sets of features.

    Args:
        a: features with shape (N, D).
        b: features with shape (M, D).

    Returns:
        The distance d², at least about 0.

    Raises:
        ValueError: if the widths differ, a set has fewer than 2 rows, or a value is not finite.
    """
    from cleanfid import fid  # imports torchvision and scipy: 2 s that only this function needs

    for name, rows in (("first", a), ("second", b)):
        if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
            raise ValueError(
                f"the {name} set of features needs shape (N >= 2, D) and finite values, "
                f"got shape {rows.shape}"
            )
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of different width: {a.shape[1]} and {b.shape[1]}")
    with warnings.catch_warnings():
        # A ReLU that never fires makes the covariance singular; the trace is still right to 3e-7.
        warnings.filterwarnings("ignore", message="Matrix is singular")
        return float(fid.fid_from_feats(a.astype(np.float64), b.astype(np.float64)))


@dataclass(frozen=True)
class Floor:
    """The distance of real data to real data.

    Args:
        value: mean distance over random pairs of disjoint subsets of all real data.
        std: its standard deviation over those pairs.
        split: distance of the training split at hand to the held-out split.
        count: size of the subset that stands for the samples.
    """

    value: float
    std: float
    split: float
    count: int


def real_floor(
    train: Features, held_out: Features, count: int, seed: int, repeats: int = 20
) -> Floor:
    """Return the distance that `count` real data points have to as many as are held out.

    It is what a perfect model can be expected to score. The one distance between the training and
    the held-out split is not: a stratified split has the same share of every class on both sides,
    which no independent samples have (scikit-learn's digits: 0.25 against 0.56 ± 0.15 over random
    splits). So all real data are dealt at random into two disjoint sets of the sizes in question,
    `repeats` times; the distance of the split at hand is returned beside.

    Args:
        train: features of the training split with shape (N, D).
        held_out: features of the held-out split with shape (M, D).
        count: number of samples that the models are judged by; N at most is used.
        seed: seed of the subsets.
        repeats: number of random pairs of subsets.

    Returns:
        The floor, with its spread.
    """
    count = min(count, len(train))
    draw = np.random.default_rng(seed)
    split = frechet_distance(draw.permutation(train)[:count], held_out)
    pool = np.concatenate([train, held_out])
    dealt = []
    for _ in range(repeats):
        shuffled = draw.permutation(pool)
        dealt.append(frechet_distance(shuffled[:count], shuffled[count : count + len(held_out)]))
    return Floor(float(np.mean(dealt)), float(np.std(dealt, ddof=1)), split, count)
