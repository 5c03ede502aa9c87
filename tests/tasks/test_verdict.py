"""The sentence says what the interval shows, and of what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tasks.results.two_way import two_way
from tasks.results.verdict import details, headlines, margin_of, notes, to_know, together, verdicts


def record(model: str, values: list[float], train_seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "model": model,
        "train_seed": train_seed,
        "sampler": "heun",
        "metric": "FD (classifier 0123abcd)",
        "count": 448,
        "width": 64,
        "margin": 0.1,
        "sampling_seeds": list(range(len(values))),
        "data_sha256": "d" * 64,
        "held_out": {"by_seed": values},
        "floor": {"value": 0.7},
        "gaussian": {"held_out": {"mean": 8.0}},
        **more,
    }


VE, VP = [1.0, 1.1, 0.9], [2.0, 2.1, 1.91]


def test_one_training_seed_speaks_of_checkpoints_in_pairs_of_sampling_seeds() -> None:
    (found,) = verdicts([record("ve", VE), record("vp", VP)])
    ends = stats.ttest_rel(VE, VP).confidence_interval()
    apart = stats.ttest_ind(VE, VP, equal_var=False).confidence_interval()
    gain = (apart.high - apart.low) / (ends.high - ends.low)
    assert found.sentence == (
        "digits, heun, FD (classifier 0123abcd): ve (1.00 ± 0.10) is better than vp "
        f"(2.003 ± 0.095): difference -1.003, 95 % interval [{ends.low:+.3f}, {ends.high:+.3f}], these "
        f"checkpoints on these held-out data, in pairs of 3 sampling seeds: {gain:.1f} times narrower "
        "than without pairs. A claim about the methods takes 3 training seeds with 3 "
        "sampling seeds."
    )
    assert found.margin == 0.1
    assert found.floor == 0.7


def test_other_sampling_seeds_are_no_pairs() -> None:
    (found,) = verdicts([record("ve", VE), record("vp", VP, sampling_seeds=[7, 8, 9])])
    ends = stats.ttest_ind(VE, VP, equal_var=False).confidence_interval()
    assert found.headline is not None
    assert (found.headline.low, found.headline.high) == pytest.approx((ends.low, ends.high))
    assert "3 sampling seeds of each, which are not the same" in found.sentence


def test_equivalence_is_within_a_part_of_the_floor() -> None:
    near = [value + shift for value, shift in zip(VE, (0.01, -0.01, 0.005), strict=True)]
    (found,) = verdicts([record("ve", VE), record("vp", near)])
    assert "are equivalent within 0.07 (10 % of the floor)" in found.sentence
    (found,) = verdicts([record("ve", VE, margin=0.01), record("vp", near, margin=0.01)])
    assert "undecided between ve" in found.sentence
    assert "to decide with a probability of 80 % takes" in found.sentence


def test_three_training_seeds_speak_of_methods_and_what_a_decision_costs() -> None:
    draw = np.random.default_rng(0)

    def trained(model: str, shift: float) -> list[dict[str, Any]]:
        return [
            record(model, list(1 + shift + 0.2 * draw.standard_normal(4)), seed)
            for seed in range(3)
        ]

    seconds = {
        f"digits-{model}-{seed}-heun": {
            "train": {"seconds": 100.0},
            "sample": {"seconds_per_1000": 5.0},
        }
        for model in ("ve", "vp")
        for seed in range(3)
    }
    (found,) = verdicts([*trained("ve", 0.0), *trained("vp", 0.05)], seconds=seconds)
    assert found.costs is not None
    assert (found.costs.training, found.costs.samples) == pytest.approx((200.0, 2 * 5 * 0.448))
    assert (
        "the methods on these held-out data, in pairs of 3 training seeds × 4 sampling seeds"
        in (found.sentence)
    )
    assert "checkpoints" not in found.sentence
    assert "training seeds with" in found.sentence
    assert "The next hour is best spent on" in str(found.budget)


def test_replicates_of_the_held_out_rows_widen_a_claim_about_all_such_data() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 200))
    ve = record("ve", VE, resampled={"held_out": list(1 + 0.3 * noise[0])})
    vp = record("vp", VP, resampled={"held_out": list(2 + 0.3 * noise[1])})
    (found,) = verdicts([ve, vp])
    here, anywhere = found.statements
    assert (here.population, anywhere.population) == (False, True)
    known = here.error**2 + np.var(0.3 * (noise[0] - noise[1]), ddof=1)
    assert anywhere.error**2 == pytest.approx(known)
    assert "These checkpoints on all such data: ve is better" in found.sentence
    assert "samples 0%, held-out data 100%, of these trainings" in str(found.budget)


def test_another_judge_that_says_the_opposite_is_named() -> None:
    panel = "FD (classifier 4567cdef)"
    ve = record("ve", VE, kid={"by_seed": [3.0, 3.1, 3.0]}, panel={panel: {"by_seed": VE}})
    vp = record("vp", VP, kid={"by_seed": [1.0, 1.2, 1.0]}, panel={panel: {"by_seed": VP}})
    (found,) = verdicts([ve, vp])
    assert [name for name, _ in found.judges] == ["KID", panel]
    assert [one.answer for _, one in found.judges] == ["worse", "better"]
    assert "It depends on the judge: ve is worse by KID." in found.sentence
    assert f"{panel}: ve is better" in str(found.judged)


def test_the_sentence_says_what_is_paired() -> None:
    draw = np.random.default_rng(3)

    def trained(model: str, seeds: range) -> list[dict[str, Any]]:
        return [record(model, list(1 + 0.1 * draw.standard_normal(4)), seed) for seed in seeds]

    def said(first: range, second: range) -> str:
        return verdicts([*trained("ve", first), *trained("vp", second)])[0].sentence

    assert "in pairs of 4 sampling seeds, of 3 training seeds of each, which are not the same" in (
        said(range(3), range(3, 6))
    )
    assert "in pairs of 4 sampling seeds, of 3 and 5 training seeds of each" in (
        said(range(3), range(5))
    )
    assert "in pairs of 4 sampling seeds, of 2 training seeds of each:" in said(range(2), range(2))


def test_old_records_and_damaged_judges_do_not_stop_the_verdict() -> None:
    old = [
        {
            key: value
            for key, value in record(model, values).items()
            if key not in ("margin", "width")
        }
        for model, values in (("ve", VE), ("vp", VP))
    ]
    (found,) = verdicts([one | {"kid": {"by_seed": [1.0, float("nan"), 2.0]}} for one in old])
    assert found.judges == ()
    assert found.margin is None
    assert found.headline is not None
    with pytest.raises(ValueError, match="ve, heun, train seed 0: the record has no sliced"):
        verdicts(old, metric="sliced")
    mixed = [record("ve", VE), record("ve", VE, 1, sampling_seeds=[7, 8, 9]), record("vp", VP)]
    with pytest.raises(ValueError, match=r"train seed 1: sampling seeds \[7, 8, 9\], others"):
        verdicts(mixed)


def test_likelihoods_are_compared_in_pairs_of_images() -> None:
    draw = np.random.default_rng(2)
    images = draw.standard_normal(50)
    found = {
        "digits-ve-0": {"likelihood": {"by_image": list(2 + images)}},
        "digits-vp-0": {"likelihood": {"by_image": list(2.1 + images + 0.01 * draw.random(50))}},
    }
    (verdict,) = verdicts([record("ve", VE), record("vp", VP)], applications=found)
    (name, likelihood) = verdict.judges[-1]
    assert (name, likelihood.answer) == ("bits/dim by held-out image", "better")
    assert likelihood.gain > 20


def test_what_holds_together_is_holm_s() -> None:
    both = [
        *(record(model, values) for model, values in (("ve", VE), ("vp", VP))),
        *(
            record(model, values, sampler="euler")
            for model, values in (("ve", [1.0, 1.1, 0.9]), ("vp", [1.05, 1.1, 1.0]))
        ),
    ]
    found = verdicts(both)
    p = found[0].headline.p_value if found[0].headline else 1.0
    assert together(found) == (
        "Of all 2 comparisons together, at 95 % (Holm): ve is better than vp (digits, heun; "
        f"p = {2 * p:.2g})."
    )
    assert together(found[:1]) is None
    assert together(found) in details(found)


def test_what_cannot_be_compared_is_not() -> None:
    (found,) = verdicts([record("ve", [1.0]), record("vp", [2.0])])
    assert "no verdict on ve and vp: it takes 2 sampling seeds" in found.sentence
    assert verdicts([record("ve", [1.0, 2.0])]) == []
    with pytest.raises(ValueError, match=r"judged by .* of 100 samples .* and .* of 448 samples"):
        verdicts([record("ve", [1.0, 2.0]), record("vp", [1.0, 2.0], count=100)])
    with pytest.raises(ValueError, match=r"on data dddddddd and .* on data eeeeeeee"):
        verdicts([record("ve", [1.0, 2.0]), record("vp", [1.0, 2.0], data_sha256="e" * 64)])
    with pytest.raises(ValueError, match="metric: 'recall' is not allowed"):
        verdicts([], metric="recall")
    with pytest.raises(ValueError, match="FD∞, which is too small for 448 samples of 64 features"):
        verdicts([record("ve", VE), record("vp", VP)], metric="infinity")


def test_a_floor_of_fewer_data_than_samples_is_quoted_with_its_number() -> None:
    """37 real data beside 448 samples: the value is not of as many, and the margin is not of it."""
    floor = {"value": 0.0277, "std": None, "count": 37, "at_count": 0.009}
    alone = record("ve", [1.0, 2.0], floor=floor) | {
        "held_out": {"mean": 1.5, "std": 0.7, "by_seed": [1.0, 2.0]},
        "gaussian": {"held_out": {"mean": 8.0, "std": None}},
    }
    (sentence,) = headlines([], [alone])
    assert "real data are at 0.0277 (of N = 37, not 448), a Gaussian" in sentence
    assert margin_of(alone) == pytest.approx(0.0009)
    (sentence,) = headlines([], [alone | {"floor": floor | {"count": 448}}])
    assert "real data are at 0.0277, a Gaussian" in sentence


def test_copying_is_said_with_what_held_out_data_score_and_one_model_with_its_floor() -> None:
    alone = record("ve", [1.0, 2.0]) | {
        "held_out": {"mean": 1.5, "std": 0.7, "by_seed": [1.0, 2.0]},
        "floor": {"value": 0.7, "std": 0.21},
        "gaussian": {"held_out": {"mean": 8.0, "std": None}},
        "memorised": True,
        "authentic": {"mean": 0.1},
        "copies": {"mean": 0.25},
        "real": {"authentic": {"mean": 0.57}, "copies": {"mean": 0.0}},
        "warnings": ["few"],
    }
    assert notes(alone) == [
        "lies nearer to training data than new data do: 10.0% authentic where held-out data are "
        "57.0%, 25.0% copies where they are 0.0%",
        "few",
    ]
    fine = alone | {"memorised": False, "model": "vp"}
    assert to_know([alone, fine])[1:] == ["all: few"]
    assert to_know([alone, fine])[0].startswith("ve, heun, train seed 0: lies nearer")
    assert headlines([], [alone]) == [
        "digits, heun, FD (classifier 0123abcd): ve is at 1.50 ± 0.70, real data are at "
        "0.70 ± 0.21, a Gaussian of the data's mean and covariance is at 8."
    ]
    poor = alone | {"held_out": {"mean": 9.0, "std": 0.7}, "memorised": False}
    assert notes(poor) == [
        "worse than a Gaussian of the data's mean and covariance: 9 where that is at 8",
        "few",
    ]
    assert headlines([], [poor])[0].endswith("is at 8, so the model is worse than that.")


def test_the_two_way_table_has_its_margins() -> None:
    shown = two_way([record("ve", [1.0, 2.0]), record("ve", [2.0, 5.0], 1)])
    assert "| train 1 |      2.000 |      5.000 |  3.500 |" in shown
    assert "| mean    |      1.500 |      3.500 |  2.500 |" in shown
    assert "1.41 over trainings, 1.41 over sampling seeds" in shown


def test_samples_from_elsewhere_are_compared_with_each_model_without_pairs() -> None:
    other = record("edm", VP, sampler="external", external={"nfe": None})
    ours = [record("ve", VE), record("vp", VP), record("ve", VP, sampler="euler")]
    found = verdicts([*ours, other])
    assert [(one.sampler, *one.models) for one in found] == [
        ("heun", "ve", "vp"),
        ("heun", "ve", "edm"),
        ("heun", "vp", "edm"),
        ("euler", "ve", "edm"),
    ]
    ends = stats.ttest_ind(VE, VP, equal_var=False).confidence_interval()
    headline = found[1].headline
    assert headline is not None
    assert (headline.low, headline.high) == pytest.approx((ends.low, ends.high))
    assert headline.pairs == ()
    assert found[0].headline is not None
    assert found[0].headline.pairs == ("sampling seeds",)
    # Of a single model the sentence to quote says where it stands, and not what others have done.
    alone = [ours[0], other]
    for one in alone:
        one["held_out"] |= {"mean": 1.0, "std": 0.1}
        one["gaussian"]["held_out"]["std"] = 0.1
    said = headlines(verdicts(alone), alone)
    assert [line.split(": ")[1].split(" (")[0] for line in said] == [
        "ve is at 1.00 ± 0.10, real data are at 0.7, a Gaussian of the data's mean and covariance is at "
        "8.00 ± 0.10.",
        "ve",
    ]
    assert to_know([ours[0] | {"warnings": [], "memorised": False},
                    other | {"warnings": ["assumed"], "memorised": False}]) == [
        "edm, from elsewhere: assumed"
    ]  # fmt: skip
