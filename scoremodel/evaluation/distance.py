"""Distances between two sets of features, from moments, a kernel and slices, and the real floor.

    d² = |μ_1 − μ_2|² + tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^½)

is the Fréchet distance of the Gaussians fitted to them (Heusel et al. 2017, arXiv:1706.08500).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "INFINITY_SAMPLES",
    "Floor",
    "Moments",
    "check_features",
    "check_widths",
    "frechet_distance",
    "frechet_infinity",
    "infinity_is_stable",
    "kernel_distance",
    "moments",
    "most_samples",
    "real_floor",
    "sliced_distance",
    "subset_rows",
]

Features = NDArray[np.floating]

INFINITY_SAMPLES = 20
"""How many times as many samples as features FD_∞ takes."""

_TRIES = 1000
_DIRECTIONS = 512
_BLOCK = 128  # directions at a time


def check_features(rows: ArrayLike, name: str = "features") -> Features:
    """Return features as an array, and refuse what no distance can be computed from.

    Args:
        rows: features, which need shape (N >= 2, D): an array, a tensor on any device or lists.
        name: what they are called in the error's line.

    Returns:
        The array itself if it is one, else a view or a copy.

    Raises:
        ValueError: if they are no numbers, the shape is another one, a value is not finite, or all
            rows are equal.
    """
    try:
        # A tensor has these two, and this module does without torch.
        rows = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    except (TypeError, ValueError):
        rows = np.empty(0, object)
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"{name}: no numbers, allowed: numbers with shape (N, D)")
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(
            f"{name}: shape {rows.shape} is not allowed, allowed: (N, D), at least 2 rows"
        )
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        raise ValueError(f"{name}: {bad} of {len(rows)} rows hold a value that is not finite")
    if (rows == rows[0]).all():
        raise ValueError(
            f"{name}: all {len(rows)} rows are equal, so they have no spread to compare"
        )
    return rows


def check_widths(first: int, second: int) -> None:
    """Refuse features that two extractors made.

    Args:
        first: the width D of one set of features.
        second: the other's.

    Raises:
        ValueError: if they differ.
    """
    if first != second:
        raise ValueError(f"features of different width: {first} and {second}")


@dataclass(frozen=True)
class Moments:
    """What the Fréchet distance needs of a set of features.

    Args:
        mean: mean with shape (D,).
        covariance: covariance Σ with shape (D, D), divided by N − 1.
        factor: F with FᵀF = Σ, the centred features, if that is smaller than Σ; else None.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    factor: NDArray[np.float64] | None


def moments(features: ArrayLike, name: str = "features") -> Moments:
    """Return the moments of a set of features.

    Args:
        features: features with shape (N, D).
        name: what they are called in an error's line.

    Returns:
        Their mean, covariance and, for N <= D, the centred features themselves.

    Raises:
        ValueError: as `check_features` says.
    """
    return _moments(check_features(features, name))


def _moments(features: Features) -> Moments:
    """Return the moments of at least 2 rows, which may be equal: a subset of checked ones, say."""
    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    centred = (rows - mean) / np.sqrt(len(rows) - 1)
    few = len(rows) <= rows.shape[1]
    return Moments(mean, centred.T @ centred, centred if few else None)


def _root(of: Moments) -> NDArray[np.float64]:
    """Return F with FᵀF = Σ and as few rows as are at hand."""
    if of.factor is not None:
        return of.factor
    values, vectors = np.linalg.eigh(of.covariance)
    root: NDArray[np.float64] = np.sqrt(values.clip(0))[:, None] * vectors.T
    return root


def _root_trace(a: Moments, b: Moments) -> float:
    """Return tr (Σ_a Σ_b)^½: the roots of Σ_a Σ_b's eigenvalues, the nuclear norm of F_a F_bᵀ."""
    from scipy.linalg import eigvalsh

    if a.factor is None and b.factor is None:
        try:
            values = eigvalsh(
                a.covariance,
                b.covariance,
                type=2,
                driver="gv",  # type: ignore[arg-type]  # the stubs know the plain problem's only
                check_finite=False,
            )
            return float(np.sqrt(values.clip(0)).sum())
        except np.linalg.LinAlgError:  # Σ_b is singular: a ReLU that never fires, say
            pass
    return float(np.linalg.svd(_root(a) @ _root(b).T, compute_uv=False).sum())


def frechet_distance(a: ArrayLike | Moments, b: ArrayLike | Moments) -> float:
    """Return the Fréchet distance between the Gaussians fitted to two sets of features.

    The trace of (Σ_1 Σ_2)^½ is taken from the eigenvalues of Lᵀ Σ_1 L, where L is Σ_2's Cholesky
    factor; where there are at most D features, or Σ_2 is singular, it is the nuclear norm of F_1 F_2ᵀ
    with FᵀF = Σ, such as the centred features. It equals clean-fid's (Parmar et al. 2022,
    arXiv:2104.11222), which takes the square root of Σ_1 Σ_2.

    Args:
        a: features with shape (N, D), or their moments.
        b: features with shape (M, D), or their moments.

    Returns:
        The distance d², at least 0.

    Raises:
        ValueError: if the widths differ, or as `check_features` says.
    """
    first = a if isinstance(a, Moments) else moments(a, "the first set of features")
    second = b if isinstance(b, Moments) else moments(b, "the second set of features")
    check_widths(len(first.mean), len(second.mean))
    between = float(np.square(first.mean - second.mean).sum())
    own = float(np.trace(first.covariance) + np.trace(second.covariance))
    return max(between + own - 2 * _root_trace(first, second), 0.0)


def frechet_infinity(
    features: ArrayLike, reference: ArrayLike | Moments, seed: int, points: int = 15
) -> float:
    """Return the Fréchet distance extrapolated to infinitely many samples, FD_∞.

        d²(N) ≈ d²(∞) + c / N,

    fitted by least squares in 1/N to random subsets of N/4 … N samples (Chong & Forsyth 2020,
    arXiv:1911.07023). What remains is the bias of the reference's own size. The subsets begin at N/4,
    where the 1/N law must hold already: below 20 D it does not, and the intercept is too small, see
    `infinity_is_stable`.

    Args:
        features: samples' features with shape (N, D).
        reference: the reference's features with shape (M, D), or their moments.
        seed: seed of the subsets.
        points: number of sizes, evenly spaced in N.

    Returns:
        The intercept, which may be a little below 0.

    Raises:
        ValueError: if there are fewer than 8 samples, or as `frechet_distance` says.
    """
    features = check_features(features)
    if len(features) < 8:
        raise ValueError(f"FD∞: {len(features)} samples are not allowed, allowed: at least 8")
    fixed = reference if isinstance(reference, Moments) else moments(reference, "the reference")
    draw = np.random.default_rng(seed)
    sizes = np.linspace(len(features) // 4, len(features), points).astype(int)
    distances = [
        frechet_distance(_moments(features[draw.permutation(len(features))[:size]]), fixed)
        for size in sizes
    ]
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def infinity_is_stable(count: int, width: int) -> bool:
    """Return whether FD_∞ of so many samples is near enough to what it stands for to judge by it.

    Between Gaussians in 64 dimensions, with 899 reference points, it lacks a third of the distance
    at 6 D, a quarter at 7 D and a fiftieth at 20 D.

    Args:
        count: number of samples N.
        width: number of features D.

    Returns:
        Whether N >= 20 D.
    """
    return count >= INFINITY_SAMPLES * width


def sliced_distance(a: ArrayLike, b: ArrayLike, seed: int) -> float:
    """Return the sliced 2-Wasserstein distance of two sets of features, squared, times D.

        D mean_θ W_2²(θ·a, θ·b),    W_2² = ∫_0^1 (F_a⁻¹(u) − F_b⁻¹(u))² du

    over directions θ (Bonneel et al. 2015, DOI 10.1007/s10851-014-0506-3), each integral exact, also
    of sets of different sizes. The directions are the columns of random rotations (Rowland et al.
    2019, arXiv:1903.03784), at least 512 of them, the same for every set of that width, so that a
    shift by m counts exactly |m|²; between N(μ_1, s_1² I) and N(μ_2, s_2² I) the expected value of
    infinitely many points is |μ_1 − μ_2|² + D (s_1 − s_2)², the Fréchet distance. It sees all of a
    projection's distribution, where that one sees two moments, and never exceeds W_2² itself. Sliced
    distances between features are used as MIND (2026, arXiv:2605.06797), whose protocol this is not
    held to.

    Args:
        a: features with shape (N, D).
        b: features with shape (M, D).
        seed: seed of the directions.

    Returns:
        The distance, at least 0; of finite sets of one distribution it is above 0, by about c / N.

    Raises:
        ValueError: if the widths differ, or as `check_features` says.
    """
    a, b = (
        check_features(a, "the first set of features"),
        check_features(b, "the second set of features"),
    )
    check_widths(a.shape[1], b.shape[1])
    width: int = a.shape[1]
    draw = np.random.default_rng(seed)
    # Between two neighbouring levels of i/N and j/M both quantile functions are constant.
    levels = np.union1d(np.arange(len(a) + 1) * len(b), np.arange(len(b) + 1) * len(a))
    shares = np.diff(levels) / levels[-1]
    first, second = levels[:-1] // len(b), levels[:-1] // len(a)
    x, y = a.astype(np.float64), b.astype(np.float64)
    rotations = math.ceil(_DIRECTIONS / width)
    found = 0.0
    for _ in range(rotations):
        basis = np.linalg.qr(draw.standard_normal((width, width)))[0].T
        for block in np.split(basis, range(_BLOCK, width, _BLOCK)):
            below, above = np.sort(block @ x.T, axis=1), np.sort(block @ y.T, axis=1)
            found += float((np.square(below[:, first] - above[:, second]) @ shares).sum())
    return found / rotations


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return KID, the squared maximum mean discrepancy with a cubic kernel, unbiased.

        MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{ij} k(x_i, y_j),
        k(x, y) = (x·y / D + 1)³

    (Bińkowski et al. 2018, arXiv:1801.01401), over all pairs rather than over random subsets.

    Args:
        a: features with shape (N, D).
        b: features with shape (M, D).

    Returns:
        The estimate, which may be below 0.

    Raises:
        ValueError: if the widths differ, or as `check_features` says.
    """
    a, b = (
        check_features(a, "the first set of features"),
        check_features(b, "the second set of features"),
    )
    check_widths(a.shape[1], b.shape[1])
    x, y = a.astype(np.float64), b.astype(np.float64)

    def total(rows: NDArray[np.float64], others: NDArray[np.float64]) -> float:
        found = 0.0
        for first in range(0, len(rows), 256):
            kernel = rows[first : first + 256] @ others.T
            kernel /= rows.shape[1]
            kernel += 1
            found += float(np.vdot(kernel * kernel, kernel))  # a power takes ten times as long
        return found

    def own(rows: NDArray[np.float64]) -> float:
        diagonal = float(((np.square(rows).sum(axis=1) / rows.shape[1] + 1) ** 3).sum())
        return (total(rows, rows) - diagonal) / (len(rows) * (len(rows) - 1))

    return own(x) + own(y) - 2 * total(x, y) / (len(x) * len(y))


@dataclass(frozen=True)
class Floor:
    """The distance of real data to real data.

    Args:
        value: mean distance of random sets of fresh real data to the held-out split.
        std: its standard deviation over such sets; None if there is only one.
        count: size of the sets.
    """

    value: float
    std: float | None
    count: int


def _strata(
    count: int, size: int, draw: np.random.Generator, labels: NDArray[np.integer] | None
) -> tuple[list[NDArray[np.intp]], NDArray[np.int64]]:
    """Return groups of row numbers, and how many of each are to be drawn."""
    if labels is not None:
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        sizes = np.array([len(rows) for rows in members])
        for _ in range(_TRIES):
            counts = draw.multinomial(count, sizes / size)
            if (counts <= sizes).all():
                return members, counts
    return [np.arange(size)], np.array([min(count, size)])


def _pick(
    members: list[NDArray[np.intp]], counts: NDArray[np.int64], draw: np.random.Generator
) -> NDArray[np.intp]:
    return np.concatenate(
        [draw.permutation(rows)[:n] for rows, n in zip(members, counts, strict=True)]
    )


def subset_rows(
    count: int, size: int, draw: np.random.Generator, labels: NDArray[np.integer] | None = None
) -> NDArray[np.intp]:
    """Return `count` of `size` row numbers, drawn as independent samples would fall.

    Independent samples do not have the data's exact share of every class, as a stratified split has,
    so with labels the subset's class counts are multinomial.

    Args:
        count: how many rows.
        size: of how many.
        draw: source of randomness.
        labels: the rows' class numbers with shape (size,), if known.

    Returns:
        Row numbers with shape (count,), each at most once. Where nearly all rows are asked for, so
        that such counts are not to be had, the labels are left aside.
    """
    return _pick(*_strata(count, size, draw, labels), draw)


def most_samples(train: int, share: float = 0.0) -> int:
    """Return the largest number of samples for which there is a floor of as many real data.

    That is half of the training data that the extractor has not seen, as `real_floor` has it. The floor
    falls with its number, by about c / N, so that of fewer data is no measure for more samples.

    Args:
        train: number of training data.
        share: which part of them the extractor is trained on.

    Returns:
        The number; a floor needs at least 2.
    """
    return (train - math.floor(train * share)) // 2


def real_floor(
    fresh: ArrayLike,
    held_out: ArrayLike,
    count: int,
    seed: int,
    repeats: int = 20,
    labels: NDArray[np.integer] | None = None,
) -> Floor:
    """Return the distance that `count` real data points have to the held-out ones.

    It is what a perfect model can be expected to score with as many samples. The subsets are at most
    half of the points, or they are nearly the same one, and the floor is then that of its own `count`.

    Drawn without replacement, subsets of n of M points scatter less than sets of n new points:

        Var d² = Var_between + Var_within / (1 − n/M),

    where the class counts are drawn as new ones, so that what they add needs no correction: with labels
    there are two subsets of each. The correction is that of a mean, and so of d² where it is far above
    its bias; where d² is all bias, the deviation is too large by up to (1 + n/M)^½, which is 1.22.

    Args:
        fresh: features with shape (M, D) of training points that the extractor was not trained on.
        held_out: features of the held-out split with shape (L, D).
        count: number of samples that the models are judged by.
        seed: seed of the subsets.
        repeats: number of random subsets, or of their class counts.
        labels: the fresh points' class numbers with shape (M,), if known.

    Returns:
        The floor, with its spread.

    Raises:
        ValueError: if there are fewer than 4 fresh points, or as `check_features` says.
    """
    fresh = np.asarray(fresh)
    if len(fresh) < 4:
        raise ValueError(
            f"the floor: {len(fresh)} training points that the extractor was not trained on, "
            "allowed: at least 4"
        )
    reference = moments(held_out, "the held-out features")
    size = min(count, most_samples(len(fresh)))
    draw = np.random.default_rng(seed)
    distances = np.empty((repeats, 1 if labels is None else 2))
    for several in distances:
        strata = _strata(size, len(fresh), draw, labels)
        several[:] = [
            frechet_distance(_moments(fresh[_pick(*strata, draw)]), reference) for _ in several
        ]
    std = None
    if repeats > 1:
        between, grown = float(distances.mean(axis=1).var(ddof=1)), 1 / (1 - size / len(fresh))
        if labels is None:
            std = math.sqrt(between * grown)
        else:  # half of Var_within is in the variance of the means of two
            within = float(distances.var(axis=1, ddof=1).mean())
            std = math.sqrt(between + within * (grown - 1 / 2))
    return Floor(float(distances.mean()), std, size)
