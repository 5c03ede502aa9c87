"""Copies of training data are found, and new real data are not taken for copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from scoremodel.data.sources.torchvision import load_torchvision
from scoremodel.evaluation.distance import frechet_distance
from scoremodel.evaluation.extractors.classifier import train_classifier
from scoremodel.evaluation.memorisation import authenticity, copying, likelihood_gap
from scoremodel.evaluation.scores import METRICS, Reference


def test_authenticity_by_hand() -> None:
    """Training points 0, 1, 5: nearest of 1.5 is 1, whose own is 0 at 1; of 4 it is 5, own at 4."""
    train = np.array([[0.0], [1.0], [5.0]])
    ratios = authenticity(np.array([[1.5], [4.0], [5.0], [12.0]]), train)
    assert ratios.tolist() == [0.5, 0.25, 0, 7 / 4]
    twice = authenticity(np.array([[1.5], [0.0]]), np.array([[0.0], [1.0], [1.0]]))
    assert twice.tolist() == [np.inf, 0]


def test_copies_are_seen_whatever_the_rounding() -> None:
    """Also of training points that occur twice, in float32 far from 0."""
    draw = np.random.default_rng(7)
    train = (100 + draw.standard_normal((300, 64))).astype(np.float32)
    train[150:] = train[:150]
    assert (authenticity(train[:100], train) == 0).all()


def test_new_real_data_are_flagged_as_seldom_as_the_test_says() -> None:
    """Two tests at 0.1 % each, both conservative: of 300 innocent sets at most a few are flagged."""
    draw = np.random.default_rng(0)
    flagged = 0
    for _ in range(300):
        train, held_out, samples = draw.standard_normal((3, 120, 4))
        flagged += copying(authenticity(samples, train), authenticity(held_out, train)).memorised
    assert flagged <= 3  # 0.6 expected at most


def test_a_tenth_of_near_copies_is_flagged() -> None:
    draw = np.random.default_rng(1)
    train, held_out, samples = draw.standard_normal((3, 800, 8))
    samples[:80] = train[:80] + 0.01 * draw.standard_normal((80, 8))
    found = copying(authenticity(samples, train), authenticity(held_out, train))
    assert found.memorised
    assert found.copies == pytest.approx(0.1, abs=0.01)


def test_the_likelihood_gap_of_one_gaussian_for_all_is_its_closed_form() -> None:
    """One sample at 0: σ² is the training data's mean square, and both likelihoods follow."""
    draw = np.random.default_rng(2)
    train, new = draw.standard_normal((500, 3)), 1.2 * draw.standard_normal((400, 3))
    scale = train.std(axis=0)
    samples = np.array([[0.0, 0, 0], [1e6, 1e6, 1e6]])  # the second has no share of anything
    x, y = train / scale, new / scale
    variance = np.square(x).mean()
    known = (np.square(y).sum(1).mean() - np.square(x).sum(1).mean()) / (2 * variance) / 3
    assert likelihood_gap(samples, train, new) == pytest.approx(known, rel=1e-6)


@pytest.mark.slow
def test_a_thousand_mnist_images_repeated_are_memorised_and_held_out_ones_are_not(
    real_images: Path,
) -> None:
    """The distance alone does not see it: the copies score better than a model could."""
    raw = load_torchvision("MNIST", str(real_images))
    assert raw.labels is not None
    pixels, labels = torch.from_numpy(raw.x[:8000]), torch.from_numpy(raw.labels[:8000])
    extractor = train_classifier(pixels[:4000], labels[:4000], 256, seed=0, epochs=2)
    features = extractor.features(pixels).numpy()
    train, held_out, new = features[:4000], features[4000:7000], features[7000:]
    real = Reference(train, held_out, count=1000, seed=0)
    copies, innocent = real.score(np.repeat(train[:1000], 2, axis=0)), real.score(new)
    assert (copies.memorised, innocent.memorised) == (True, False)
    assert copies.values["copies"] == 1
    assert innocent.values["copies"] < 0.01
    assert copies.values["likelihood_gap"] > 5 * abs(innocent.values["likelihood_gap"])
    assert copies.values["held_out"] < 2 * innocent.values["held_out"]


def test_scores_are_the_metrics_of_the_same_features() -> None:
    bundled = load_digits()
    draw = np.random.default_rng(0)
    rows = (bundled.data @ draw.standard_normal((64, 6)))[draw.permutation(1797)]
    train, held_out, samples = rows[:800], rows[800:1500], rows[1500:]
    labels = np.arange(700) % 3
    real = Reference(train, held_out, count=297, seed=0, labels=labels)
    found = real.score(samples, labels=np.arange(297) % 3)
    assert list(found.values) == list(METRICS)
    assert found.values["train"] == frechet_distance(samples, train)
    assert set(found.classes) == {0, 1, 2}
    weights = np.bincount(real.matched_labels) / 297
    for metric in ("recall", "coverage"):
        mean = sum(weights[c] * found.classes[c][metric] for c in range(3))
        assert mean == pytest.approx(found.values[metric])
    assert found.classes[0]["precision"] != found.classes[1]["precision"]
    rare = Reference(train, held_out, 297, 0, labels=np.r_[[7], np.zeros(699, int)])
    asked = np.r_[[7, 7], np.zeros(295, int)]
    assert all("kid" not in values for c, values in rare.score(samples, asked).classes.items() if c)
    assert real.warnings(5) == ["5 samples do not determine the covariance of 6 features"]
    assert real.warnings(30) == ["FD∞ is stable from 6 × 6 samples on, here are 30"]
    assert real.warnings(36) == []
