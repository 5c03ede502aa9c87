"""Resampled held-out rows: the low-rank form, and what its spread is worth."""

from __future__ import annotations

import numpy as np
import pytest

from scoremodel.evaluation.distance import frechet_distance, moments
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.resampling import held_out_counts, held_out_replicates


@pytest.mark.parametrize(
    ("samples", "held_out", "width"),
    [(300, 200, 24), (20, 200, 24), (300, 40, 60), (50, 40, 60)],
    ids=["N > D", "N < D", "L < D < N", "N and L < D"],
)
@pytest.mark.parametrize("dead", [0, 5])
def test_a_replicate_is_the_distance_to_its_rows(
    samples: int, held_out: int, width: int, dead: int
) -> None:
    """Also where real data lack features that samples have, and far from 0."""
    draw = np.random.default_rng(samples + width)
    mixing = draw.standard_normal((width, width))
    features, real_rows = (
        draw.standard_normal((n, width)) @ mixing + 3 for n in (samples, held_out)
    )
    real_rows[:, :dead] = 0
    real = Reference(real_rows, real_rows, samples, seed=2)
    found = held_out_replicates(features, real, 3)
    for replicate, counts in zip(found, held_out_counts(real, 3), strict=True):
        rows = np.repeat(real_rows, counts, axis=0)
        assert len(rows) == held_out
        assert replicate == pytest.approx(frechet_distance(features, rows), rel=1e-8)


def test_replicates_have_the_same_rows_for_whatever_is_judged() -> None:
    draw = np.random.default_rng(3)
    train, held_out, features = draw.standard_normal((3, 60, 4))
    real = Reference(train, held_out, 60, seed=2)
    found = held_out_replicates(features, real, 20)
    again = held_out_replicates(features, Reference(train[:30], held_out, 9, seed=2), 7)
    assert np.array_equal(again, found[:7])
    other = held_out_replicates(features, Reference(train, held_out, 60, seed=3), 7)
    assert not np.isclose(other, found[:7]).any()
    # A shift of all samples is seen by every replicate as by |m − μ*|².
    moved = held_out_replicates(features + 5, real, 20)
    means = held_out_counts(real, 20) @ held_out / 60 - features.mean(axis=0)
    assert moved - found == pytest.approx(100 - 10 * means.sum(axis=1), rel=1e-9)


@pytest.mark.parametrize("name", ["others", "close", "same noise"])
def test_the_spread_of_a_difference_is_that_over_new_held_out_data(name: str) -> None:
    """Ratio of the bootstrap's to the true standard deviation: .98 to 1.02, of one distance 1.0 to 1.2."""
    width, count, size = 16, 448, 899
    draw = np.random.default_rng(0)
    first, second = draw.standard_normal((2, count, width))
    sides = {
        "others": (first + 0.1, 1.1 * second),
        "close": (1.03 * first, second),
        "same noise": (1.05 * first, 0.97 * first),
    }[name]
    known = [moments(rows) for rows in sides]
    new = [moments(draw.standard_normal((size, width))) for _ in range(400)]
    differences = [frechet_distance(known[0], h) - frechet_distance(known[1], h) for h in new]
    truth = float(np.std(differences, ddof=1))
    variances = []
    for seed in range(8):
        real = Reference(first[:50], draw.standard_normal((size, width)), count, seed)
        a, b = (held_out_replicates(rows, real) for rows in sides)
        variances.append((a - b).var(ddof=1))
    ratio = float(np.sqrt(np.mean(variances))) / truth
    # Of a standard deviation over n values: 1/√(2n); 8 bootstraps each know one set of held-out data.
    error = np.hypot(1 / np.sqrt(2 * 400), np.std(variances) / np.mean(variances) / 2 / np.sqrt(8))
    assert abs(ratio - 1) < 3 * error + 0.02
    assert error < 0.05


def test_features_of_another_width_are_named() -> None:
    rows = np.arange(24.0).reshape(8, 3) ** 2
    with pytest.raises(ValueError, match="different width: 2 and 3"):
        held_out_replicates(rows[:, :2], Reference(rows, rows, 8, 0))
