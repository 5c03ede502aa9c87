"""What a decision takes has the power that it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scoremodel.evaluation.comparison import Comparison, Side, compare
from scoremodel.evaluation.design import Costs, chance_to_decide, needed, next_steps


def standardised(draw: np.random.Generator, count: int = 2000) -> np.ndarray:
    values = draw.standard_normal(count)
    return (values - values.mean()) / values.std(ddof=1)


def apart(ratio: float, difference: float) -> Comparison:
    """Return an undecided comparison of independent sides with spreads 1 and `ratio`."""
    unit = standardised(np.random.default_rng(0))
    found = compare(Side(unit[None] + difference), Side(ratio * unit[None]))
    return replace(found, samples=(2, 2))


def test_cohen_s_table_of_the_t_test() -> None:
    """Cohen 1988, table 2.4.1, two-sided at 5 %: 17, 26, 64 a side for d = 1, 0.8, 0.5 at 80 %."""
    for difference, known in ((1.0, 17), (0.8, 26), (0.5, 64)):
        design = needed(apart(1.0, difference))
        assert design is not None
        assert design.samples == known


@pytest.mark.parametrize("ratio", [5.0, 20.0])
def test_unequal_spreads_have_the_promised_power(ratio: float) -> None:
    """Welch and Satterthwaite's freedom; spreads taken as equal gave .75 to .79 for .80."""
    design = needed(apart(ratio, 0.8 * ratio))
    assert design is not None
    draw = np.random.default_rng(1)
    n, cases = design.samples, 1000
    decided = sum(
        compare(
            Side(draw.standard_normal((1, n)) + 0.8 * ratio),
            Side(ratio * draw.standard_normal((1, n))),
        ).answer
        != "undecided"
        for _ in range(cases)
    )
    fewer = chance_to_decide(0.8 * ratio, design.error * np.sqrt(n / (n - 1)), design.freedom, None)
    assert decided / cases >= 0.8 - 2 * np.sqrt(0.16 / cases)
    assert fewer < 0.8 + 0.02  # and no more than it takes


@pytest.mark.parametrize("difference", [0.0, 0.03, 0.06, 0.1])
def test_equivalence_is_found_as_often_as_promised(difference: float) -> None:
    """Paired differences with a spread of .069 beside a margin of .073, as measured on digits."""
    unit = standardised(np.random.default_rng(2))[None]
    names = tuple(range(unit.size))
    first = Side(0.069 * unit + difference, (0,), names)
    found = compare(first, Side(0 * unit, (0,), names), margin=0.073)
    design = needed(replace(found, samples=(3, 3)), Costs(60.0, 2.0))
    assert design is not None
    assert design.seconds == pytest.approx(2.0 * (design.samples - 3))
    draw, cases, decided = np.random.default_rng(3), 1000, 0
    for _ in range(cases):
        values = difference + 0.069 * draw.standard_normal((1, design.samples))
        seeds = tuple(range(design.samples))
        decided += (
            compare(Side(values, (0,), seeds), Side(0 * values, (0,), seeds), margin=0.073).answer
            != "undecided"
        )
    assert abs(decided / cases - 0.8) <= 0.05


def test_what_the_held_out_data_leave_open_no_samples_close() -> None:
    draw = np.random.default_rng(4)
    replicates = 0.05 * draw.standard_normal((1, 200))
    values = 0.01 + 0.02 * draw.standard_normal((1, 6))
    seeds = tuple(range(6))
    sides = Side(values, (0,), seeds, replicates), Side(0 * values, (0,), seeds, 0 * replicates)
    assert needed(compare(*sides, "checkpoints", True, 0.05)) is None
    assert needed(compare(*sides, "checkpoints", False, 0.05)) is not None


def test_an_hour_goes_where_it_narrows_most() -> None:
    """Trainings differ by 1, samples by 0.1: trainings, unless each of them takes the whole hour."""
    draw = np.random.default_rng(5)
    values = draw.standard_normal((6, 1)) + 0.1 * draw.standard_normal((6, 8))
    names = tuple(range(6)), tuple(range(8))
    found = compare(Side(values, *names), Side(0 * values, *names))
    cheap = next_steps(found, Costs(60.0, 2.0))
    assert list(cheap) == ["trainings", "samples"]
    assert cheap["trainings"].trainings == 6 + int(3600 / (60 + 8 * 2))
    assert cheap["trainings"].error == pytest.approx(
        found.error * np.sqrt(6 / cheap["trainings"].trainings), rel=0.05
    )
    dear = next_steps(found, Costs(1e5, 2.0))
    assert list(dear) == ["samples", "trainings"]
    assert dear["trainings"].trainings == 6


def test_at_every_look_a_decision_takes_more_and_has_the_promised_power() -> None:
    unit = standardised(np.random.default_rng(5), 8)[None]
    seeds = tuple(range(8))
    found = compare(
        Side(0.2 * unit + 0.14, (0,), seeds), Side(0 * unit, (0,), seeds), margin=0.02, watched=True
    )
    assert found.answer == "undecided"
    design, once = needed(found), needed(replace(found, watched=False))
    assert design is not None
    assert once is not None
    assert design.samples > once.samples
    draw, cases, decided = np.random.default_rng(6), 1000, 0
    names = tuple(range(design.samples))
    for _ in range(cases):
        values = 0.14 + 0.2 * draw.standard_normal((1, design.samples))
        both = Side(values, (0,), names), Side(0 * values, (0,), names)
        decided += compare(*both, margin=0.02, watched=True).answer != "undecided"
    assert abs(decided / cases - 0.8) <= 0.05
