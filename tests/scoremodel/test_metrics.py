"""Metrics: their values, their order, and that a new one is one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from scoremodel.evaluation import metrics
from scoremodel.evaluation.distance import (
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    sliced_distance,
)
from scoremodel.evaluation.manifold import manifold
from scoremodel.evaluation.memorisation import authenticity, copying, likelihood_gap
from scoremodel.evaluation.metrics import base
from scoremodel.evaluation.metrics.base import METRICS, ordered_metrics
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.scores import score

LABELS = {
    "held_out": ("to held-out", "lower"),
    "train": ("to train", "lower"),
    "infinity": ("FD∞", "lower"),
    "kid": ("KID", "lower"),
    "sliced": ("sliced W2²", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "authentic": ("authentic", "higher"),
    "copies": ("copies", "lower"),
    "likelihood_gap": ("likelihood gap", "lower"),
}
# Computed at commit dbd4297, where they stood in one function.
VALUES = {
    "held_out": 2.3923607913124876,
    "train": 2.0380184714418945,
    "infinity": 2.045753878604523,
    "kid": 1.7020536212924187,
    "precision": 0.87,
    "recall": 0.95,
    "density": 0.8759999999999999,
    "coverage": 0.935,
    "authentic": 0.49,
    "copies": 0.2,
    "likelihood_gap": 0.42623484820437696,
}
CLASSES = {
    0: {
        "recall": 0.9841269841269841,
        "coverage": 0.9523809523809523,
        "precision": 0.8656716417910447,
        "density": 0.8388059701492537,
        "kid": 1.2985992956527177,
    },
    1: {
        "recall": 0.8857142857142857,
        "coverage": 0.9,
        "precision": 0.8805970149253731,
        "density": 0.9014925373134327,
        "kid": 1.983492714488165,
    },
    2: {
        "recall": 0.9850746268656716,
        "coverage": 0.9552238805970149,
        "precision": 0.8636363636363636,
        "density": 0.8878787878787879,
        "kid": 1.4948323756674164,
    },
}


Example = tuple[NDArray[np.float64], Reference, NDArray[np.integer]]


@pytest.fixture(scope="module")
def example() -> Example:
    """Return samples in ten dimensions, the real data's side, and the classes asked for.

    A fifth of the samples copy training points, a tenth stray.
    """
    draw = np.random.default_rng(11)
    mixing = draw.standard_normal((10, 10)) / 3
    train, held_out, samples = (draw.standard_normal((n, 10)) @ mixing for n in (400, 300, 200))
    samples[:40] = train[:40] + 0.003 * draw.standard_normal((40, 10))
    samples[40:60] += 2
    real = Reference(train, held_out, count=200, seed=5, labels=np.arange(300) % 3)
    return samples, real, np.arange(200) % 3


def test_the_values_are_those_of_before(example: Example) -> None:
    """But for the order of sums, which another number of threads or another processor changes."""
    samples, real, labels = example
    found = score(samples, real, labels)
    assert {kind: found.values[kind] for kind in VALUES} == pytest.approx(VALUES, rel=1e-10)
    assert found.memorised
    assert found.classes.keys() == CLASSES.keys()
    for label, values in CLASSES.items():
        assert found.classes[label] == pytest.approx(values, rel=1e-10)


def test_the_values_are_the_functions_of_the_features_to_the_bit(example: Example) -> None:
    samples, real, _ = example
    copied = copying(authenticity(samples, real.train), authenticity(real.matched, real.train))
    found = score(samples, real).values
    assert found == found | {
        "held_out": frechet_distance(samples, real.held_out),
        "train": frechet_distance(samples, real.train),
        "infinity": frechet_infinity(samples, real.held_out, seed=5),
        "kid": kernel_distance(samples, real.held_out),
        "sliced": sliced_distance(samples, real.held_out, seed=5),
        **manifold(samples, real.matched).shares(),
        "authentic": copied.authentic,
        "copies": copied.copies,
        "likelihood_gap": likelihood_gap(samples, real.fitted, real.new),
    }


def test_nothing_is_computed_twice(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, real, labels = example
    called: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(base, name)

        def call(*arguments: Any) -> Any:
            called.append(name)
            return function(*arguments)

        return call

    shared = ("authenticity", "copying", "manifold", "moments")
    for name in shared:
        monkeypatch.setattr(base, name, counted(name))
    score(samples, real, labels)
    assert sorted(called) == list(shared)


def test_metrics_say_their_name_place_and_direction() -> None:
    found = ordered_metrics()
    assert [kind for kind in found if kind in LABELS] == list(LABELS)
    assert {kind: (found[kind].label, found[kind].better) for kind in LABELS} == LABELS
    places = [one.place for one in found.values()]
    assert places == sorted(set(places))


def test_a_new_metric_is_one_file(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "largest.py").write_text(
        "from scoremodel.evaluation.metrics.base import METRICS, Judged\n\n\n"
        '@METRICS.register("largest", label="largest", place=45, better="lower")\n'
        "def largest(judged: Judged) -> float:\n"
        "    return float(judged.features.max())\n"
    )
    ordered_metrics()  # all are known before; monkeypatch brings that back
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    monkeypatch.setattr(METRICS, "_known", dict(METRICS._known))
    monkeypatch.delitem(METRICS.__dict__, "homes")
    samples, real, _ = example
    found = score(samples, real).values
    assert found["largest"] == samples.max()
    assert [kind for kind in found if kind in ("largest", *LABELS)][3:7] == [
        "kid",
        "largest",
        "sliced",
        "precision",
    ]


def test_classes_are_shares_of_the_whole() -> None:
    bundled = load_digits()
    draw = np.random.default_rng(0)
    rows = (bundled.data @ draw.standard_normal((64, 6)))[draw.permutation(1797)]
    train, held_out, samples = rows[:800], rows[800:1500], rows[1500:]
    labels = np.arange(700) % 3
    real = Reference(train, held_out, count=297, seed=0, labels=labels)
    found = score(samples, real, np.arange(297) % 3)
    assert found.values["train"] == frechet_distance(samples, train)
    assert set(found.classes) == {0, 1, 2}
    weights = np.bincount(real.matched_labels) / 297
    for metric in ("recall", "coverage"):
        mean = sum(weights[c] * found.classes[c][metric] for c in range(3))
        assert mean == pytest.approx(found.values[metric])
    assert found.classes[0]["precision"] != found.classes[1]["precision"]
    rare = Reference(train, held_out, 297, 0, labels=np.r_[[7], np.zeros(699, int)])
    asked = np.r_[[7, 7], np.zeros(295, int)]
    assert all(
        "kid" not in values for c, values in score(samples, rare, asked).classes.items() if c
    )


def test_what_the_number_of_samples_does_not_allow_is_said(example: Example) -> None:
    _, real, _ = example
    assert real.warnings(5, 5) == ["5 samples do not determine the covariance of 10 features"]
    assert real.warnings(199, 199) == ["FD∞ is too small below 20 × 10 samples, here are 199"]
    assert real.warnings(200, 200) == []
    assert real.warnings(301, 301) == [
        "precision, recall and coverage compare 301 samples with only 300 held-out points"
    ]
