"""Held-out data drawn again: how far a distance, or a difference of two, hangs on the real data at hand.

More samples make a distance surer, but never the held-out data that it is measured to. The bootstrap
(Efron 1979) draws their rows again with replacement, here the same rows for whatever is judged, so
that in a difference of two distances what the rows do to both drops out. A single distance's
replicates are biased upwards and centred on nothing: only differences of them mean something.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, check_features, check_widths
from scoremodel.evaluation.reference import Reference
from scoremodel.rng import derive_seed

__all__ = ["held_out_counts", "held_out_replicates"]


def held_out_counts(real: Reference, replicates: int) -> NDArray[np.int64]:
    """Return how often each replicate has each held-out row: multinomial counts that sum to L.

    Args:
        real: the real data's side, whose seed is the counts' too.
        replicates: B, the number of replicates; fewer are the first of more.

    Returns:
        Counts with shape (B, L), the same whatever is judged.
    """
    size = len(real.held_out)
    draw = np.random.default_rng(derive_seed(real.seed, "held-out rows"))
    return draw.multinomial(size, np.full(size, 1 / size), replicates)


def held_out_replicates(
    features: Features, real: Reference, replicates: int = 200
) -> NDArray[np.float64]:
    """Return the Fréchet distances of fixed samples to resampled held-out data.

        d*² = |μ − μ*|² + tr Σ + tr Σ* − 2 tr (R Σ* Rᵀ)^½,      RᵀR = Σ,      Σ* = HᵀWH / (L − 1)

    of the resampled, centred features H with counts W. R has as many rows as Σ has rank, at most
    min(N − 1, D), and R Hᵀ is computed once: a replicate costs the eigenvalues of a matrix of that
    size or, if that is smaller, of the size of its distinct rows. Each equals `frechet_distance` to the
    rows written out (Heusel et al. 2017, arXiv:1706.08500).

    Args:
        features: samples' features with shape (N, D).
        real: the real data's side.
        replicates: B, the number of replicates.

    Returns:
        Distances d*² with shape (B,), at least 0; entry b of two sets of samples has the same rows.

    Raises:
        ValueError: if the widths differ, or as `check_features` says.
    """
    features = check_features(features, "the samples' features")
    check_widths(features.shape[1], real.held_out.shape[1])
    size = len(real.held_out)
    counts = held_out_counts(real, replicates).astype(np.float64)
    rows = features.astype(np.float64)
    # Everything around the held-out mean: the replicates' means are then small beside the spread.
    centre = real.held_out_moments.mean
    held_out = real.held_out.astype(np.float64) - centre
    shift = rows.mean(axis=0) - centre
    own, root = _root(rows - rows.mean(axis=0))
    means = counts @ held_out / size
    squares = counts @ np.square(held_out).sum(axis=1) - size * np.square(means).sum(axis=1)
    projected = held_out @ root.T / np.sqrt(size - 1)
    # A feature that no real data have would leave eigenvalues of 0, whose roots are all rounding.
    _, spreads, axes = np.linalg.svd(projected, full_matrices=False)
    projected = projected @ axes[spreads > spreads[0] * len(axes) * np.finfo(float).eps].T
    traces = np.array([_root_trace(projected, row) for row in counts])
    distances: NDArray[np.float64] = (
        np.square(shift - means).sum(axis=1) + own + squares / (size - 1) - 2 * traces
    )
    return distances.clip(0)


def _root(centred: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return tr Σ, and R with RᵀR = Σ and as many rows as Σ has rank, from its smaller Gram matrix."""
    scaled = centred / np.sqrt(len(centred) - 1)
    few = len(scaled) <= scaled.shape[1]
    values, vectors = np.linalg.eigh(scaled @ scaled.T if few else scaled.T @ scaled)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    kept_vectors = vectors[:, kept].T
    root: NDArray[np.float64] = (
        kept_vectors @ scaled if few else np.sqrt(values[kept])[:, None] * kept_vectors
    )
    return float(np.square(scaled).sum()), root


def _root_trace(projected: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Return the nuclear norm of the centred rows of H Rᵀ, each so often as it was drawn."""
    here = counts > 0
    rows, weights = projected[here], counts[here]
    rows = np.sqrt(weights)[:, None] * (rows - weights @ rows / weights.sum())
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    return float(np.sqrt(np.linalg.eigvalsh(gram).clip(0)).sum())
