"""Signs of copying: are samples nearer to training data than new real data are?

A distance between distributions cannot see it: the training data themselves score well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, check_features
from scoremodel.evaluation.neighbours import nearest

__all__ = ["NEAR", "Copying", "authenticity", "copying", "likelihood_gap", "nearest_training"]

NEAR = 1 / 3
"""A sample nearer to a training point than this share of the point's own distance is a copy."""


def nearest_training(
    features: Features,
    train: Features,
    neighbours: int = 1,
    itself: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the distances to the nearest training points, and their numbers.

    Args:
        features: features with shape (N, D).
        train: the training split's features with shape (M, D).
        neighbours: how many, the nearest first; of equally near ones the first comes first.
        itself: which training points `features` are, with shape (N,), if they are: none of them is its
            own neighbour.

    Returns:
        Distances, 0 of a copy, and row numbers, with shape (N, neighbours).

    Raises:
        ValueError: as `check_features` says.
    """
    features, train = np.asarray(features), check_features(train, "the training features")
    squares, numbers = nearest(
        features.astype(np.float64), train.astype(np.float64), neighbours, itself
    )
    return np.sqrt(squares), numbers


def authenticity(features: Features, train: Features) -> NDArray[np.float64]:
    """Return how far each sample is from the training data, in units of their own distances.

    That is the distance to its nearest training point over the distance from that point to its own
    nearest training point that is not the same: beside a point that occurs twice every sample would be
    far. The share of samples above 1 is AuthPct (Alaa et al. 2022,
    arXiv:2102.08921), to be compared with that of held-out data; near 0 is a copy.

    Args:
        features: samples' features with shape (N, D).
        train: the training split's features with shape (M, D).

    Returns:
        Ratios with shape (N,): 0 of a copy, which is within the rounding of the features' type, since an
        extractor may round the same image otherwise in another batch or on another device.

    Raises:
        ValueError: as `check_features` says.
    """
    features = check_features(features, "the samples' features")
    train = check_features(train, "the training features")
    distance, number = (found[:, 0] for found in nearest_training(features, train))
    points, place = np.unique(number, return_inverse=True)
    rounding = _rounding(features, train) * np.linalg.norm(train[points].astype(np.float64), axis=1)
    between = _between(train, points.astype(np.intp), rounding)
    with np.errstate(divide="ignore", invalid="ignore"):  # where all training points are the same
        ratio: NDArray[np.float64] = distance / between[place]
    ratio[distance <= rounding[place]] = 0.0
    return ratio


def _rounding(features: Features, train: Features) -> float:
    """Return by what share of its length a vector's rounding may move it."""
    return 16 * float(np.finfo(np.result_type(features, train, np.float16)).eps)


def _between(
    train: Features, points: NDArray[np.intp], rounding: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far training points are from the nearest others that are not the same, but for rounding."""
    most, neighbours = len(train) - 1, 1
    between = nearest_training(train[points], train, itself=points)[0][:, 0]
    while neighbours < most and (twins := np.flatnonzero(between <= rounding)).size:
        neighbours = min(8 * neighbours, most)
        own = points[twins]
        distances = nearest_training(train[own], train, neighbours, own)[0]
        first = (distances > rounding[twins, None]).argmax(axis=1)  # 0 where all are twins
        between[twins] = distances[np.arange(len(twins)), first]
    return between


@dataclass(frozen=True)
class Copying:
    """Whether samples copy training data more often than new real data seem to.

    Args:
        authentic: share of samples farther from their nearest training point than that one is from
            its own.
        copies: share of samples nearer than `NEAR` times that distance.
        memorised: whether one of the two shares is worse than held-out data's by more than chance: a
            one-sided exact test at 0.1 % for each.
    """

    authentic: float
    copies: float
    memorised: bool


def copying(ratios: NDArray[np.float64], held_out: NDArray[np.float64]) -> Copying:
    """Return the shares of authentic samples and of copies, and whether they speak of copying.

    Args:
        ratios: samples' `authenticity` with shape (N,).
        held_out: held-out data's, with shape (M,).

    Returns:
        The shares, and the outcome of Fisher's exact test of each against held-out data's.
    """
    from scipy.stats import fisher_exact

    def more(here: NDArray[np.bool_], there: NDArray[np.bool_]) -> bool:
        counts = np.array([[side.sum(), (~side).sum()] for side in (here, there)])
        return bool(fisher_exact(counts, alternative="greater").pvalue < 1e-3)

    memorised = more(ratios <= 1, held_out <= 1) or more(ratios < NEAR, held_out < NEAR)
    return Copying(float((ratios > 1).mean()), float((ratios < NEAR).mean()), memorised)


def likelihood_gap(
    samples: Features, train: Features, held_out: Features, rounds: int = 20
) -> float:
    """Return how much likelier training data are than held-out data under a density of the samples.

        q(x) = 1/N Σ_j N(x; x_j, σ_j² I),    gap = (mean log q(train) − mean log q(held-out)) / D

    where the σ_j maximise the training data's likelihood (as in the feature likelihood divergence,
    Jiralerspong et al. 2023, arXiv:2302.04440, here by expectation-maximisation): at a copy σ_j
    shrinks, and the training data's likelihood grows where held-out data's does not. Features are
    scaled by the training data's standard deviations. The fit favours training data a little: compare
    with the gap of held-out data taken for samples.

    Args:
        samples: samples' features with shape (N, D).
        train: training features with shape (M, D).
        held_out: held-out features with shape (L, D).
        rounds: rounds of expectation-maximisation.

    Returns:
        The gap in nats per dimension.

    Raises:
        ValueError: as `check_features` says.
    """
    from scipy.spatial.distance import cdist

    samples, train, held_out = (
        check_features(rows, f"the {name} features")
        for rows, name in ((samples, "samples'"), (train, "training"), (held_out, "held-out"))
    )
    scale = train.std(axis=0, dtype=np.float64)
    used = scale > 0
    width = int(used.sum())
    centres, fitted, new = (
        rows[:, used].astype(np.float64) / scale[used] for rows in (samples, train, held_out)
    )
    squares = cdist(fitted, centres, "sqeuclidean")
    smallest = 1e-6  # of a variance that is 1: an exact copy's density stays finite
    variance = np.full(len(centres), max(float(squares.min(axis=1).mean()) / width, smallest))

    def parts(
        squares: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return each centre's part of a point's density over the largest, their sum, log density."""
        found = squares * (-0.5 / variance)
        found -= 0.5 * width * np.log(variance)
        largest = found.max(axis=1)
        found -= largest[:, None]
        np.maximum(found, -700, out=found)  # what is nothing beside 1 takes ten times as long
        np.exp(found, out=found)
        total = found.sum(axis=1)
        return found, total, largest + np.log(total)

    for _ in range(rounds):
        share, total, _ = parts(squares)
        weight = (1 / total) @ share
        share *= squares
        fit = (1 / total) @ share / np.maximum(width * weight, 1e-300)
        variance = np.where(weight > 1e-12, np.maximum(fit, smallest), variance)
    gap = parts(squares)[2].mean() - parts(cdist(new, centres, "sqeuclidean"))[2].mean()
    return float(gap) / width
