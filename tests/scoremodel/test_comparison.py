"""The interval holds the true difference as often as it says; the verdict and the seeds follow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scoremodel.evaluation.comparison import compare, seeds_needed
from scoremodel.evaluation.distance import frechet_distance, moments


def test_the_interval_is_scipy_s_welch() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.standard_normal(5), 3 * draw.standard_normal(4) + 1
    known = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    found = compare([a], [b], level=0.9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.subject == "checkpoints"
    trained = compare([[x, x + 1] for x in a], [[x] for x in b], level=0.9)
    known = stats.ttest_ind(a + 0.5, b, equal_var=False).confidence_interval(0.9)
    assert (trained.low, trained.high) == pytest.approx((known.low, known.high))
    assert (trained.subject, trained.counts) == ("methods", (5, 4))


@pytest.mark.parametrize(("counts", "trainings"), [((3, 3), 1), ((3, 5), 5), ((3, 3), 2)])
def test_a_95_percent_interval_holds_the_truth_in_95_percent_of_cases(
    counts: tuple[int, int], trainings: int
) -> None:
    """Unequal spreads, true difference 0.7; between 93 and 97 % of 4,000 (standard error 0.3 %)."""
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(4000):
        sides = []
        for count, mean, spread in zip(counts, (1.7, 1.0), (1.0, 1.5), strict=True):
            if trainings >= 3:
                values = (mean + spread * draw.standard_normal(count))[:, None]
            else:
                values = mean + spread * draw.standard_normal((trainings, count))
            sides.append(values)
        found = compare(*sides)
        held += found.low <= 0.7 <= found.high
    assert 0.93 <= held / 4000 <= 0.97


def test_an_interval_of_distances_holds_their_known_difference() -> None:
    """Two models that differ in a shift δ only: their expected distances differ by |δ|² exactly.

    Means and covariances of Gaussian samples are independent, so all bias of few samples is the same.
    """
    draw = np.random.default_rng(2)
    reference = moments(draw.standard_normal((2000, 3)))
    centre = reference.mean
    held, trials = 0, 600
    for _ in range(trials):
        sides = [
            [
                frechet_distance(draw.standard_normal((100, 3)) + centre + s, reference)
                for _ in "12345"
            ]
            for s in (0.5, 0.0)
        ]
        found = compare([sides[0]], [sides[1]])
        held += found.low <= 3 * 0.25 <= found.high
    assert 0.93 <= held / trials <= 0.97 + 2 * np.sqrt(0.05 * 0.95 / trials)


def test_noise_that_both_methods_share_drops_out_of_the_difference() -> None:
    """The same sampling seeds for all trainings: their noise is in every mean of both sides."""
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(3000):
        shared = draw.standard_normal(3)
        sides = [mean + 0.3 * draw.standard_normal((3, 1)) + shared for mean in (1.7, 1.0)]
        found = compare(sides[0], sides[1])
        held += found.low <= 0.7 <= found.high
    assert 0.93 <= held / 3000 <= 0.97


def test_the_verdict_follows_from_the_interval() -> None:
    low, high = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]
    assert compare([low], [high]).verdict == "better"
    assert compare([high], [low]).verdict == "worse"
    close = compare([low], [[1.05, 0.95, 1.2]])
    assert close.verdict == "no difference shown"
    assert close.seeds is not None
    assert close.seeds[0] is not None
    assert close.seeds[1] is None or close.seeds[0] < close.seeds[1]
    assert compare([low], [high]).seeds is None
    draw = np.random.default_rng(4)
    many = draw.standard_normal(100)
    unshown = compare([many], [many + 1.8 * many.std() * np.sqrt(2 / 100)])
    assert unshown.seeds is not None
    assert unshown.seeds[0] == 101  # 100 did not suffice
    with pytest.raises(ValueError, match="at least 2 sampling seeds"):
        compare([[1.0]], [[2.0]])
    one_seed = compare([[x] for x in low], [[x] for x in high])
    assert (one_seed.subject, one_seed.verdict) == ("methods", "better")


def test_seeds_needed_have_the_power_that_they_promise() -> None:
    """Cohen 1988, table 2.4.1: 17 a side for 80 % power at 5 % and one standard deviation."""
    needed = seeds_needed(1.0, np.sqrt(2))
    assert needed == 17
    assert seeds_needed(0.5, np.sqrt(2)) == 64
    assert seeds_needed(0.0, 1.0) is None
    draw = np.random.default_rng(3)
    shown = sum(
        compare([draw.standard_normal(needed) + 1], [draw.standard_normal(needed)]).low > 0
        for _ in range(2000)
    )
    assert abs(shown / 2000 - 0.8) < 4 * np.sqrt(0.16 / 2000) + 0.01
