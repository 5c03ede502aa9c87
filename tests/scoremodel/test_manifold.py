"""Precision, recall, density and coverage, by hand and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from scoremodel.evaluation.manifold import manifold


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


def test_too_few_points_are_named() -> None:
    with pytest.raises(ValueError, match=r"the samples' features: 5 rows .* more than k = 5"):
        manifold(np.arange(10.0).reshape(5, 2), np.arange(40.0).reshape(20, 2))
