"""Copies of training data are found, and new real data are not taken for copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from scoremodel.data.sources.torchvision import load_torchvision
from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.evaluation.extractors.classifier import train_classifier
from scoremodel.evaluation.extractors.shipped import shipped_file
from scoremodel.evaluation.memorisation import (
    authenticity,
    copying,
    likelihood_gap,
    nearest_training,
)
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.scores import score


def test_authenticity_by_hand() -> None:
    """Training points 0, 1, 5: nearest of 1.5 is 1, whose own is 0 at 1; of 4 it is 5, own at 4."""
    train = np.array([[0.0], [1.0], [5.0]])
    ratios = authenticity(np.array([[1.5], [4.0], [5.0], [12.0]]), train)
    assert ratios.tolist() == [0.5, 0.25, 0, 7 / 4]
    twice = authenticity(np.array([[1.5], [0.0]]), np.array([[0.0], [1.0], [1.0]]))
    assert twice.tolist() == [0.5, 0]
    often = authenticity(
        np.array([[1.25], [5.0]]), np.repeat([[0.0], [1.0], [3.0]], [1, 30, 100], 0)
    )
    assert often.tolist() == [0.25, 1]


def test_copies_are_seen_whatever_the_rounding() -> None:
    """Also of training points that occur twice, in float32 far from 0."""
    draw = np.random.default_rng(7)
    train = (100 + draw.standard_normal((300, 64))).astype(np.float32)
    train[150:] = train[:150]
    assert (authenticity(train[:100], train) == 0).all()


def test_a_copy_beside_a_near_copy_is_a_copy() -> None:
    """Each training point has a neighbour one rounding away, nearer than |x|² + |y|² − 2 x·y can tell."""
    draw = np.random.default_rng(8)
    train = (1000 + draw.standard_normal((300, 64))).astype(np.float32)
    train[150:] = train[:150]
    train[150:, 0] = np.nextafter(train[150:, 0], np.float32(np.inf))
    distances, numbers = nearest_training(train, train, 2)
    assert numbers[:, 0].tolist() == list(range(300))
    assert (distances[:, 0] == 0).all()
    assert numbers[:, 1].tolist() == [*range(150, 300), *range(150)]
    assert (authenticity(train, train) == 0).all()


def test_copies_are_copies_in_whatever_batch_their_features_were_computed() -> None:
    """Of training data that occur twice: beside a distance of 0 a rounding would be infinitely far."""
    judge = load_extractor(shipped_file("digits", 0))
    images = torch.from_numpy(load_digits().images).to(torch.uint8)[:, None]
    train = torch.cat([images[:300], images[:300]])
    features = judge.features(train).numpy()
    alone = np.concatenate([judge.features(one[None]).numpy() for one in images[:40]])
    assert (authenticity(alone, features) == 0).all()
    # A batch size and one row more are two halves, and no row by itself.
    assert np.array_equal(
        judge.features(images[:513]).numpy(), judge.features(images)[:513].numpy()
    )


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


def test_five_hundred_mnist_images_repeated_are_memorised_and_held_out_ones_are_not(
    real_images: Path,
) -> None:
    """The distance alone does not see it: the copies score better than a model could."""
    raw = load_torchvision("MNIST", str(real_images))
    assert raw.labels is not None
    pixels, labels = torch.from_numpy(raw.x[:4000]), torch.from_numpy(raw.labels[:4000])
    extractor = train_classifier(pixels[:2000], labels[:2000], 256, seed=0, epochs=2)
    features = extractor.features(pixels).numpy()
    train, held_out, new = features[:2000], features[2000:3500], features[3500:]
    real = Reference(train, held_out, count=500, seed=0)
    copies, innocent = score(np.repeat(train[:500], 2, axis=0), real), score(new, real)
    assert (copies.memorised, innocent.memorised) == (True, False)
    assert copies.values["copies"] == 1
    assert innocent.values["copies"] < 0.01
    assert copies.values["likelihood_gap"] > 5 * abs(innocent.values["likelihood_gap"])
    assert copies.values["held_out"] < 2 * innocent.values["held_out"]
