"""Effects of factors in blocks: what was planted is found, and the interval holds it as often as it says."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scoremodel.evaluation.factorial import effects
from scoremodel.evaluation.intervals import holm

FACTORS = ("sde", "recipe", "sampler")
TERMS = [*combinations(range(3), 1), *combinations(range(3), 2)]
NAMES = ["sde", "recipe", "sampler", "sde × recipe", "sde × sampler", "recipe × sampler"]


def signs(term: tuple[int, ...]) -> Any:
    """Return the sign of a term in each cell, from the cells' indices."""
    return np.prod([2 * np.indices((2, 2, 2))[axis] - 1 for axis in term], axis=0)


def planted(sizes: Any) -> Any:
    """Return the cells' means (…, 2, 2, 2) of effects (…, 6): half an effect up and half down."""
    return sum(
        np.asarray(sizes)[..., i, None, None, None] / 2 * signs(term)
        for i, term in enumerate(TERMS)
    )


def test_planted_effects_are_recovered_exactly() -> None:
    sizes = [0.5, -2.0, 0.25, 1.0, 0.0, -0.125]
    three_way = 3.0 * signs((0, 1, 2))  # is none of the six
    blocks = np.array([0.0, 10.0, -4.0])[:, None, None, None]
    found = effects((planted(sizes) + three_way + blocks)[None], FACTORS)
    assert [one.name for one in found] == NAMES
    assert [one.estimate for one in found] == pytest.approx(sizes, abs=1e-14)
    assert all(one.claim == "checkpoints" and one.level == 0.95 for one in found)
    # An interaction by its other definition: half the difference of two effects.
    cells = planted(sizes)
    by_hand = ((cells[1, 1] - cells[0, 1]).mean() - (cells[1, 0] - cells[0, 0]).mean()) / 2
    assert found[3].estimate == pytest.approx(by_hand)


def test_an_effect_is_the_paired_t_test_of_the_blocks() -> None:
    draw = np.random.default_rng(0)
    observed = draw.standard_normal((5, 2, 2, 2)) + 3 * draw.standard_normal((5, 1, 1, 1))
    found = effects(observed[None], FACTORS, level=0.9)
    high, low = observed[:, 1].mean((1, 2)), observed[:, 0].mean((1, 2))
    known = stats.ttest_rel(high, low)
    interval = known.confidence_interval(0.9)
    assert (found[0].low, found[0].high) == pytest.approx((interval.low, interval.high))
    assert found[0].p == pytest.approx(known.pvalue)
    for one, term in zip(found, TERMS, strict=True):
        contrasts = (observed * signs(term)).sum((1, 2, 3)) / 4
        alone = stats.ttest_1samp(contrasts, 0.0)
        interval = alone.confidence_interval(0.9)
        assert one.estimate == pytest.approx(contrasts.mean())
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
        assert one.p == pytest.approx(alone.pvalue)


def test_what_a_block_does_to_all_its_cells_widens_no_interval() -> None:
    """Cells taken as independent observations would: their intervals grow with the blocks' spread."""
    draw = np.random.default_rng(1)
    observed = draw.standard_normal((4, 2, 2, 2))
    shifted = observed + 100 * draw.standard_normal((4, 1, 1, 1))
    for one, other in zip(
        effects(observed[None], FACTORS), effects(shifted[None], FACTORS), strict=True
    ):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-10)
    pooled = stats.ttest_ind(shifted[:, 1].ravel(), shifted[:, 0].ravel()).confidence_interval()
    assert pooled.high - pooled.low > 20 * (one.high - one.low)


@pytest.mark.parametrize("blocks", [3, 8])
def test_intervals_hold_what_was_planted_as_often_as_they_say(blocks: int) -> None:
    """Blocks shift all their cells, and effects differ from block to block: both by chance.

    Cells that count as independent once the blocks' means are out, their residuals pooled, hold the
    first effect in two cases of three only.
    """
    draw, simulations = np.random.default_rng(2), 600
    sizes = np.array([0.3, -1.0, 0.0, 0.5, 0.0, 0.2])
    own = sizes + draw.standard_normal((simulations, blocks, 6)) * [1.0, 0.2, 0.5, 0.1, 0.0, 0.3]
    observed = (
        planted(own)
        + 5 * draw.standard_normal((simulations, blocks, 1, 1, 1))
        + 0.3 * draw.standard_normal((simulations, blocks, 2, 2, 2))
    )
    held = np.zeros(6)
    for one in observed:
        held += [
            e.low <= s <= e.high for e, s in zip(effects(one[None], FACTORS), sizes, strict=True)
        ]
    assert (
        np.abs(held / simulations - 0.95) < 0.02 + 2 * np.sqrt(0.05 * 0.95 / simulations)
    ).all(), held / simulations

    centred = observed - observed.mean((2, 3, 4), keepdims=True)
    centred -= centred.mean(1, keepdims=True)
    freedom = 7 * (blocks - 1)
    error = np.sqrt((centred**2).sum((1, 2, 3, 4)) / freedom / (2 * blocks))
    estimate = observed[:, :, 1].mean((1, 2, 3)) - observed[:, :, 0].mean((1, 2, 3))
    pooled = np.abs(estimate - sizes[0]) <= stats.t.ppf(0.975, freedom) * error
    assert pooled.mean() < 0.75


def test_what_a_sampling_seed_does_to_an_effect_in_all_trainings_is_in_its_interval() -> None:
    """Trainings spread by .05, sampling seeds by .15, in 3 × 3; means over them alone hold 3 in 4."""
    draw, simulations, held, over_trainings = np.random.default_rng(4), 500, 0, 0
    for _ in range(simulations):
        table = (
            0.05 * draw.standard_normal((3, 1))
            + 0.15 * draw.standard_normal((1, 3))
            + 0.05 * draw.standard_normal((3, 3))
        )
        observed = table[:, :, None, None, None] * signs((0,)) / 2
        first = effects(observed, FACTORS)[0]
        held += first.low <= 0 <= first.high
        alone = stats.ttest_1samp(table.mean(1), 0.0).confidence_interval()
        over_trainings += alone.low <= 0 <= alone.high
    assert first.claim == "methods"
    assert held / simulations > 0.92
    assert over_trainings / simulations < 0.8


def test_holm_s_values_are_those_of_the_procedure() -> None:
    """Each is p times the number of hypotheses left, never falling, in the order of the input."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    with pytest.raises(ValueError, match="p-values must be in"):
        holm([0.1, float("nan")])


def test_all_together_err_as_often_as_they_say() -> None:
    """Without any effect one of the six is below 5 % in about 26 % of cases, after Holm in 5 %."""
    draw, simulations = np.random.default_rng(3), 1000
    found = [effects(draw.standard_normal((1, 4, 2, 2, 2)), FACTORS) for _ in range(simulations)]
    alone = sum(any(one.p < 0.05 for one in each) for each in found) / simulations
    together = sum(any(one.p_holm < 0.05 for one in each) for each in found) / simulations
    assert abs(alone - (1 - 0.95**6)) < 4 * np.sqrt(0.26 * 0.74 / simulations)
    assert 0.02 < together < 0.05 + 4 * np.sqrt(0.05 * 0.95 / simulations)


def test_contrasts_without_spread_are_certain() -> None:
    cells = np.zeros((1, 3, 2, 2))
    cells[:, :, 1] = 1.0
    first, second, both = effects(cells, ("a", "b"))
    assert (first.low, first.estimate, first.high, first.p) == (1.0, 1.0, 1.0, 0.0)
    assert (second.estimate, second.p, both.p_holm) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (np.zeros((3, 2, 2)), r"3 factors need .* \(J, K, 2, 2, 2\), got \(3, 2, 2\)"),
        (np.zeros((1, 1, 2, 2, 2)), "at least 2 sampling seeds"),
        (np.full((2, 2, 2, 2, 2), np.nan), "finite"),
    ],
)
def test_what_does_not_fit_is_refused(observed: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        effects(observed, FACTORS)
