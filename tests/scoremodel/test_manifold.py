"""Precision, recall, density and coverage, by hand and where the answer is known."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from scoremodel.evaluation.manifold import Manifold, manifold


def test_a_small_case_by_hand() -> None:
    """On a line, k = 1: real 0, 1, 3 have radii 1, 1, 2; samples 0.5, 3.5, 9 have 3, 3, 5.5."""
    real = np.array([[0.0], [1.0], [3.0]])
    samples = np.array([[0.5], [3.5], [9.0]])
    found = manifold(samples, real, k=1)
    assert found.inside.tolist() == [True, True, False]
    assert found.density.tolist() == [2, 1, 0]
    assert found.recalled.tolist() == [True, True, True]
    assert found.covered.tolist() == [True, True, True]
    far = manifold(samples + 20, real, k=1)
    assert far.shares() == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_shares_of_one_distribution_are_what_is_known() -> None:
    """Coverage of equal distributions: 1 − Π_{i<k} (N − 1 − i)/(2N − 1 − i) (Naeem et al., App. B)."""
    draw = np.random.default_rng(0)
    n, k, repeats = 150, 5, 60
    several = [manifold(*draw.standard_normal((2, n, 6)), k).shares() for _ in range(repeats)]
    coverage = np.array([shares["coverage"] for shares in several])
    density = np.array([shares["density"] for shares in several])
    known = 1 - np.prod([(n - 1 - i) / (2 * n - 1 - i) for i in range(k)])
    assert abs(coverage.mean() - known) < 4 * coverage.std() / np.sqrt(repeats)
    assert abs(density.mean() - 1) < 4 * density.std() / np.sqrt(repeats)


def test_a_missing_mode_shows_in_recall_and_an_invented_one_in_precision() -> None:
    draw = np.random.default_rng(1)
    both = draw.standard_normal((400, 3)) + 20 * (np.arange(400) % 2)[:, None]
    one = draw.standard_normal((400, 3))
    lacking, inventing = manifold(one, both).shares(), manifold(both, one).shares()
    assert abs(lacking["recall"] - 0.5) < 0.05
    assert lacking["precision"] > 0.95
    assert abs(inventing["precision"] - 0.5) < 0.05
    assert inventing["recall"] > 0.95


def by_definition(samples: np.ndarray, real: np.ndarray, k: int) -> Manifold:
    """Return the same from all differences written out."""

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(a[:, None] - b[None]).sum(axis=2))

    own, theirs = (np.sort(distances(rows, rows), axis=1)[:, k] for rows in (samples, real))
    between = distances(real, samples)
    near = between < theirs[:, None]
    return Manifold(
        near.any(axis=0), near.sum(axis=0) / k, (between < own).any(axis=1), near.any(axis=1)
    )


@pytest.mark.parametrize("where", [0.0, 1000.0])
def test_exact_copies_are_where_the_definition_has_them(where: float) -> None:
    """A copy of a point's k-th neighbour is as far as that one: not nearer, whatever the rounding."""
    draw = np.random.default_rng(2)
    real = (where + draw.standard_normal((300, 64))).astype(np.float32)
    for samples in (real, real[::-1][:200], np.repeat(real[:100], 2, axis=0)):
        found, exact = (
            manifold(samples, real, 5),
            by_definition(*map(np.float64, (samples, real)), 5),
        )
        for one, other in zip(astuple(found), astuple(exact), strict=True):
            np.testing.assert_array_equal(one, other)
    on_a_grid = draw.integers(0, 3, (2, 250, 4)) + where  # equal distances abound, also 0
    found, exact = manifold(*on_a_grid, 5), by_definition(*on_a_grid, 5)
    for one, other in zip(astuple(found), astuple(exact), strict=True):
        np.testing.assert_array_equal(one, other)
    copies = manifold(real, real, 5)
    # In its own neighbourhood and in those of the points whose first four it is: five in the mean.
    assert copies.shares()["density"] == pytest.approx(1)


def in_whole_numbers(samples: np.ndarray, real: np.ndarray, k: int) -> Manifold:
    """Return the same of features that are small whole numbers, whose products and sums are exact."""

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        centre = real[0]
        a, b = a - centre, b - centre
        found: np.ndarray = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
        assert found.max() < 2**53
        return found

    own, theirs = (np.partition(squares(x, x), k, axis=1)[:, k] for x in (samples, real))
    between = squares(real, samples)
    near = between < theirs[:, None]
    return Manifold(
        near.any(axis=0), near.sum(axis=0) / k, (between < own).any(axis=1), near.any(axis=1)
    )


@pytest.mark.parametrize("width", [64, 2048])
@pytest.mark.parametrize("where", [0, 10**6])
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("outlier", [1, 10**6])
def test_ties_are_ties_by_whole_numbers(
    width: int, where: int, doubled: bool, outlier: int
) -> None:
    """All copies, half copies and none; also of real data that occur twice, and beside one far away."""
    draw = np.random.default_rng(3)
    real, new = draw.poisson(0.05, (2, 300, width)).astype(float)
    real[-1] *= outlier
    if doubled:
        real[150:] = real[:150]
    real, new = real + where, new + where
    for samples in (real, np.concatenate([real[:150], new[:150]]), new):
        found, exact = manifold(samples, real), in_whole_numbers(samples, real, 5)
        for one, other in zip(astuple(found), astuple(exact), strict=True):
            np.testing.assert_array_equal(one, other)


def test_too_few_points_are_named() -> None:
    with pytest.raises(ValueError, match=r"the samples' features: 5 rows .* more than k = 5"):
        manifold(np.arange(10.0).reshape(5, 2), np.arange(40.0).reshape(20, 2))
