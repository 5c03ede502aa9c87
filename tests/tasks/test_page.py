"""The page's upper half: what stands where, in data units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoremodel.evaluation.comparison import Comparison, Side, compare
from tasks.files.arrays import write_arrays
from tasks.report.figures import budget, estimation, intervals, judges
from tasks.report.figures.base import Results
from tasks.report.figures.comparisons import comparisons
from tasks.report.pictures.base import PICTURES
from tasks.report.pictures.pairs import by_difference
from tasks.results.active import active_pairs
from tasks.results.verdict import Verdict

VE = np.array([[1.0, 1.2, 0.8], [1.1, 1.3, 0.9]])
VP = np.array([[0.9, 1.1, 0.73], [0.92, 1.15, 0.75]])


def found(first: Any = VE, second: Any = VP, resampled: bool = True, **more: Any) -> Comparison:
    sides = [
        Side(
            np.array(values, dtype=float),
            tuple(range(len(values))),
            tuple(range(len(values[0]))),
            np.array([[0.0, 0.1, 0.2]]) * (1 + number) if resampled else None,
        )
        for number, values in enumerate((first, second))
    ]
    return compare(*sides, **more)


def verdict(*statements: Comparison, judged: Any = (), **more: Any) -> Verdict:
    said: dict[str, Any] = {"floor": 0.7, "gaussian": 8.0, "margin": 0.1, "costs": None, **more}
    return Verdict(
        dataset="digits",
        sampler="heun",
        metric="FD",
        models=("ve", "vp"),
        statements=statements,
        judges=tuple(judged),
        **said,
    )


RECORDS = [
    {
        "dataset": "digits",
        "sampler": sampler,
        "model": model,
        "held_out": {"by_seed": (values + (sampler == "euler")).tolist()},
    }
    for sampler in ("heun", "euler")
    for model, side in (("ve", VE), ("vp", VP))
    for values in side
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Return the axes into which the next figure draws."""
    axes: list[Axes] = []

    def instead(draw: Callable[[Sequence[Axes]], None], panels: int = 1, **_: Any) -> str:
        axes.extend(Figure().subplots(1, panels, sharey=True, squeeze=False)[0])
        draw(axes)
        return ""

    for module in (estimation, budget, intervals):
        monkeypatch.setattr(module, "svg", instead)
    return axes


def dots(panel: Axes) -> list[list[float]]:
    return [
        list(np.asarray(line.get_ydata(), dtype=float).round(6))
        for line in panel.lines
        if line.get_marker() == "o"
    ]


def segments(panel: Axes) -> np.ndarray[Any, Any]:
    """Return the ends of all intervals, with shape (intervals, 2 points, 2 coordinates)."""
    return np.array([part for lines in panel.collections for part in lines.get_segments()])  # type: ignore[attr-defined]


def test_the_difference_stands_on_the_models_own_scale(drawn: list[Axes]) -> None:
    statements = [found(margin=0.07), found(margin=0.07, population=True)]
    estimation.estimation_plot(verdict(*statements), RECORDS)
    left, right = drawn
    # Of each model its sets of samples, and then its trainings' means.
    known = [values for side in (VE, VP) for values in (*side.T, side.mean(1))]
    assert dots(left) == [list(values.round(6)) for values in known]
    zero = VP.mean()
    (shifted,) = right.child_axes
    assert shifted._functions[0](VE.mean()) == pytest.approx(statements[0].difference)  # type: ignore[attr-defined]
    ends = segments(right)
    assert ends[:, :, 0].tolist() == [[0, 0], [1, 1]]
    reach = np.array([[zero + one.low, zero + one.high] for one in statements])
    assert ends[:, :, 1] == pytest.approx(reach)
    assert dots(right) == [[round(float(VE.mean()), 6)]] * 2
    (band,) = right.patches
    assert band.get_extents().transformed(right.transData.inverted()).intervaly == pytest.approx(
        [zero - 0.07, zero + 0.07]
    )
    # Lines join what came from the same noise, each training its own three.
    joined = [line for line in left.lines if line.get_color() == "0.75"]
    assert [list(np.asarray(line.get_ydata())) for line in joined] == [
        [a, b] for ve, vp in zip(VE, VP, strict=True) for a, b in zip(ve, vp, strict=True)
    ]


def test_the_view_holds_the_floor_if_it_is_near_and_an_endless_interval_ends_at_its_edge(
    drawn: list[Axes],
) -> None:
    near = estimation.view(verdict(found()), (VE, VP))
    assert near.lines == {"floor": 0.7}
    assert near.beyond == {"Gaussian": 8.0}
    assert near.low < 0.7 < 1.3 < near.high
    far = estimation.view(verdict(found(), floor=0.01, gaussian=1.0), (VE, VP))
    assert far.lines == {"Gaussian": 1.0}
    assert far.beyond == {"floor": 0.01}
    endless = found(VE[:, :2], VP[:, :2], watched=True)
    assert np.isinf(endless.high)
    seen = estimation.view(verdict(endless), (VE, VP))
    estimation.estimation_plot(verdict(endless), RECORDS)
    assert segments(drawn[1])[0, :, 1] == pytest.approx([seen.low, seen.high])


def test_without_a_spread_the_values_stand_alone(drawn: list[Axes]) -> None:
    single = [r | {"held_out": {"by_seed": r["held_out"]["by_seed"][:1]}} for r in RECORDS[::2]]
    estimation.estimation_plot(verdict(), single)
    assert [0.9] in dots(drawn[0])
    assert [text.get_text() for text in drawn[1].texts] == ["no interval"]
    assert not drawn[1].collections


def test_the_shares_of_the_variance_sum_to_one(drawn: list[Axes]) -> None:
    first, second = (np.vstack([side, side[:1] + shift]) for side, shift in ((VE, 0.1), (VP, 0.3)))
    both = found(first, second, claim="methods", population=True)
    parts = both.variances.parts(3, 3)
    assert budget.unknown(both) == {}
    shares = both.shares
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["held-out data"] == pytest.approx(0.01 / sum(parts.values()))
    budget.budget_bar(both)
    bars = drawn[0].patches
    widths = [bar.get_width() for bar in bars]  # type: ignore[attr-defined]
    assert widths == pytest.approx(list(shares.values()))
    starts = [bar.get_x() for bar in bars]  # type: ignore[attr-defined]
    assert starts == pytest.approx([0, *np.cumsum(widths)[:-1]])


def test_what_is_not_known_of_the_variance_is_said() -> None:
    one = found(VE[:1], VP[:1], resampled=False)
    assert one.shares == {"samples": 1.0}
    assert budget.unknown(one)["trainings"] == "not known from one training seed"
    text = budget.budget_bar(one)
    assert "trainings: not known from one training seed" in text
    assert "samples: 100% (±" in text
    assert "no part of what is said" in budget.unknown(found())["trainings"]
    assert found(VE, VE, resampled=False).shares == {}
    nothing: Any = Results(None, {}, {}, [], [verdict(found(VE, VE, resampled=False))])  # type: ignore[arg-type]
    assert budget.budget(nothing) == []


def test_each_judge_has_its_own_scale(drawn: list[Axes]) -> None:
    large, exact = found(100 * VE, 100 * VP), found(VE, VE + 1)
    rows = [intervals.Row("", one, one.error, "") for one in (found(), large, exact)]
    same, also, certain = (intervals.scaled(row) for row in rows)
    assert same == pytest.approx(also)
    half = (found().high - found().low) / 2 / found().error
    assert same[2] - same[1] == pytest.approx(half)
    assert certain == (-np.inf, -np.inf, -np.inf)  # without any spread
    judged = verdict(found(), judged=[("KID", large), ("sure", exact)])
    judges.judges_strip(judged)
    panel = drawn[0]
    assert segments(panel)[0, :, 0] == pytest.approx([same[0], same[2]])
    assert segments(panel)[2, :, 0] == pytest.approx([panel.get_xlim()[0]] * 2)
    assert [text.get_text() for text in panel.texts][2] == "-1: ve is better"


def test_judges_agree_or_do_not() -> None:
    better, worse = found(VE - 1, VP + 0.1 * VE), found(VE + 1, VP)
    undecided = found(VE, VE + np.array([[0.1, -0.1, 0.05], [-0.1, 0.1, 0.02]]))
    assert [one.answer for one in (better, worse, undecided)] == ["better", "worse", "undecided"]
    assert judges.agreement(verdict(better)) is None
    assert judges.agreement(verdict(judged=[("KID", better)])) is None
    say = judges.agreement
    assert say(verdict(worse, judged=[("KID", worse)])) == "All 2 judges agree: vp is better."
    assert say(verdict(better, judged=[("KID", undecided), ("W", undecided)])) == (
        "No judge contradicts another: ve is better according to FD; undecided according to KID and W."
    )
    assert say(verdict(better, judged=[("KID", worse), ("W", better)])) == (
        "The judges disagree: ve is better according to FD and W; vp is better according to KID."
    )


def test_all_comparisons_stand_in_units_of_the_floor(drawn: list[Axes]) -> None:
    one = found(margin=0.07)
    results: Any = [None, {}, {}, [], [verdict(one), verdict(found(VP, VE))]]
    comparisons(Results(*results))
    ends = segments(drawn[0])[:, :, 0]
    assert ends[0] == pytest.approx([one.low / 0.7, one.high / 0.7])
    assert ends[1] == pytest.approx(-ends[0][::-1])
    (band,) = drawn[0].patches
    assert band.get_extents().transformed(drawn[0].transData.inverted()).intervalx == pytest.approx(
        [-0.1, 0.1]
    )


def test_the_pairs_that_differ_most_stand_first() -> None:
    first = np.full((40, 1, 3, 3), 8, np.uint8)
    second = first.copy()
    second[7] = 0  # 64 in each pixel; as unsigned numbers 0 - 8 would be 248
    second[3, 0, 0] = 16
    second[30, 0, 0, 0] = 7
    order = by_difference(first, second)
    assert order[:4].tolist() == [7, 3, 30, 0]
    assert sorted(order) == list(range(40))
    info = {"levels": 17, "models": ["ve", "vp"]}
    picture: Any = PICTURES["pairs"]({"first": first, "second": second}, info)
    scale = 480 // (16 * 4)
    pixels = np.asarray(picture)[::scale, ::scale]
    assert pixels.shape == (2 * 4, 16 * 4)
    grey = round(8 * 255 / 16)
    assert pixels[:3, :3].tolist() == [[grey] * 3] * 3  # the first model above
    assert not pixels[4:7, :3].any()
    assert pixels[4, 4:7].tolist() == [255] * 3  # the second pair beside it
    assert pixels[4, 8] == round(7 * 255 / 16)


def test_points_from_the_same_noise_are_joined() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 2))
    arrays = {"first": points, "second": points + 1}
    info = {"levels": None, "models": ["ve", "vp"]}
    text: Any = PICTURES["pairs"](arrays, info)
    assert text == PICTURES["pairs"](arrays, info)
    assert "those from the same noise joined by a line" in text


def test_the_first_two_models_are_beside_each_other(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = {
        "datasets": ["digits", "moons"],
        "models": ["ve", "vp", "subvp"],
        "train_seeds": [4, 5],
        "samplers": ["heun", "euler"],
    }
    found = list(active_pairs(active))
    assert [name for name, _, _ in found] == [
        f"{dataset}-ve-4-{sampler}-beside-vp"
        for dataset in active["datasets"]
        for sampler in active["samplers"]
    ]
    assert found[0][1].name == "digits-ve-4-heun"
    assert found[0][2].name == "digits-vp-4-heun"
    assert list(active_pairs(active | {"models": ["ve"]})) == []
    monkeypatch.chdir(tmp_path)
    from tasks import pictures

    monkeypatch.setattr(pictures, "put_away_leftovers", lambda: None)
    monkeypatch.setattr(pictures, "resolved", lambda _: active | {"datasets": ["digits"]})
    for number, (_, *models) in enumerate(found[:2]):
        for level, one in enumerate(models):
            data = np.full((20, 1, 8, 8), 4 * level + number, np.uint8)
            write_arrays(one.shown, {"data": data}, {"picture": "grid", "levels": 17})
    pictures.main(found[0][1])
    made = sorted(path.name for path in (tmp_path / "artifacts/pictures").iterdir())
    assert [name for name in made if "beside" in name] == [
        "digits-ve-4-euler-beside-vp.png",
        "digits-ve-4-heun-beside-vp.png",
    ]
    assert len(made) == 6
