"""The sentence says what the interval shows, and of what."""

from __future__ import annotations

from typing import Any

import pytest

from scoremodel.evaluation.comparison import compare
from tasks.results.verdict import headlines, notes, verdicts


def record(model: str, values: list[float], train_seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "model": model,
        "train_seed": train_seed,
        "sampler": "heun",
        "metric": "FD (classifier 0123abcd)",
        "count": 448,
        "data_sha256": "d" * 64,
        "held_out": {"by_seed": values},
        "infinity": {"by_seed": [-value for value in values]},
        **more,
    }


def test_one_training_seed_speaks_of_checkpoints() -> None:
    (found,) = verdicts([record("ve", [1.0, 1.1, 0.9]), record("vp", [2.0, 2.1, 1.9])])
    known = compare([[1.0, 1.1, 0.9]], [[2.0, 2.1, 1.9]])
    assert found.sentence == (
        "digits, heun, FD (classifier 0123abcd): ve (1.00 ± 0.10) is better than vp "
        f"(2.00 ± 0.10): difference -1.00, 95 % interval [{known.low:+.2f}, {known.high:+.2f}], "
        "these checkpoints only, over 3 sets of samples of each; the methods would take 3 training "
        "seeds."
    )
    (other,) = verdicts(
        [record("ve", [1.0, 1.1, 0.9]), record("vp", [2.0, 2.1, 1.9])], metric="infinity"
    )
    assert "ve (-1.00 ± 0.10) is worse than vp" in other.sentence


def test_three_training_seeds_speak_of_methods_and_of_the_seeds_it_would_take() -> None:
    ve = [record("ve", [value, value + 0.2], seed) for seed, value in enumerate((1.0, 1.2, 0.8))]
    vp = [record("vp", [value, value + 0.2], seed) for seed, value in enumerate((1.1, 1.3, 0.9))]
    (found,) = verdicts([*ve, *vp])
    assert "no difference shown between ve (1.10 ± 0.20) and vp (1.20 ± 0.20)" in found.sentence
    assert "over 3 training seeds of each" in found.sentence
    assert "checkpoints" not in found.sentence
    # t-test, d = 0.1 / 0.2: 64 a side (Cohen 1988, table 2.4.1).
    assert "64 if it is as small as it seems" in found.sentence


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
    assert headlines([alone]) == [
        "digits, heun, FD (classifier 0123abcd): ve is at 1.50 ± 0.70, real data are at "
        "0.70 ± 0.21, a Gaussian of the data's mean and covariance is at 8."
    ]
