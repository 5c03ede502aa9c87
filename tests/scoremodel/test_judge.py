"""A judge that is trained on real data is judged on others: what it has seen is kept out of the floor."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scoremodel.data.sources.base import RawData, load_source
from scoremodel.evaluation.distance import frechet_distance, most_samples, real_floor
from scoremodel.evaluation.extractors.base import image_hashes, load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import (
    Classifier,
    accuracy,
    part,
    train_classifier,
)
from scoremodel.evaluation.extractors.identity import Identity
from scoremodel.evaluation.extractors.shipped import NUMBERS, SHA256, shipped_file, shipped_for
from scoremodel.evaluation.extractors.shipped.__main__ import as_digits
from scoremodel.evaluation.reference import Reference


def blobs(labels: NDArray[np.integer], draw: np.random.Generator) -> NDArray[np.uint8]:
    """Return images of one bright spot, 8×8 pixels and 17 levels; the class is where it is."""
    middle = np.array([[3.0, 3.0], [3.5, 3.0], [3.2, 3.5]])[labels]
    middle = middle + draw.normal(0, 1.0, (len(labels), 2))
    y, x = np.mgrid[:8, :8]
    away = (y - middle[:, :1, None]) ** 2 + (x - middle[:, 1:, None]) ** 2
    grey = 14 * np.exp(-away / 4) + draw.normal(0, 2.5, away.shape)
    return grey.round().clip(0, 16).astype(np.uint8)[:, None]


def too_high(seed: int, share: float | None) -> float:
    """Return the logarithm of the floor of 300 images over what new images of its number score.

    Half of the images are to train on; a judge is trained on a share of them, or on all.
    """
    draw = np.random.default_rng(seed)
    labels = np.arange(150) % 3  # a stratified split
    train, held_out = blobs(labels, draw), blobs(labels, draw)
    seen = np.arange(150) if share is None else part(150, share, seed, labels)
    judge = train_classifier(
        torch.from_numpy(train[seen]), torch.from_numpy(labels[seen]), 17, seed, epochs=80
    )

    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return judge.features(torch.from_numpy(images)).numpy()

    fresh = None if share is None else np.flatnonzero(~judge.has_seen(train))
    real = Reference(features(train), features(held_out), 448, 0, fresh=fresh)
    floor = real_floor(real.fresh, real.held_out, 448, 0, 20, labels[real.fresh_rows])
    assert floor.count == (75 if share is None else 37) == most_samples(150, share or 0.0)
    new = [
        frechet_distance(
            features(blobs(draw.integers(0, 3, floor.count), draw)), real.held_out_moments
        )
        for _ in range(20)
    ]
    return math.log(floor.value / float(np.mean(new)))


def test_new_images_lie_at_the_floor_of_fresh_rows_and_not_at_that_of_seen_ones() -> None:
    """Eight judges: the mean of what the floor is too high by is 0 within its error, or it is not."""

    def mean_and_error(share: float | None) -> tuple[float, float]:
        found = [too_high(seed, share) for seed in range(8)]
        return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))

    mean, error = mean_and_error(0.5)
    assert error < 0.2
    assert abs(mean) < 3 * error
    mean, error = mean_and_error(None)
    assert mean > 5 * error


def test_an_extractor_s_file_says_what_it_has_seen(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 17, (40, 1, 8, 8)).astype(np.uint8), np.arange(40) % 2
    assert image_hashes(images[:1])[0] == int.from_bytes(
        hashlib.blake2b(images[0].tobytes(), digest_size=8).digest(), "little", signed=True
    )
    images[39] = images[0]  # the same image twice is seen, whichever row was trained on
    rows = np.arange(10)
    judge = train_classifier(
        torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]), 17, 0, epochs=1
    )
    save_extractor(judge, tmp_path / "e.safetensors")
    loaded = load_extractor(tmp_path / "e.safetensors")
    assert (np.diff(loaded.seen) > 0).all()
    assert np.flatnonzero(loaded.has_seen(images)).tolist() == [*range(10), 39]
    save_extractor(Identity(), tmp_path / "i.safetensors")
    assert not load_extractor(tmp_path / "i.safetensors").has_seen(images).any()


def test_a_part_has_its_share_of_every_class_and_is_the_seed_s() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 7])
    rows = part(157, 0.4, 3, labels)
    assert len(np.unique(rows)) == len(rows)
    assert np.abs(np.bincount(labels[rows]) - 0.4 * np.array([100, 50, 7])).max() < 1
    assert np.array_equal(rows, part(157, 0.4, 3, labels))
    assert not np.array_equal(rows, part(157, 0.4, 4, labels))
    assert len(part(60_000, 1 / 6, 0)) == pytest.approx(10_000, abs=1)
    for count, share in ((157, 0.4), (60_000, 1 / 6), (899, 0.5), (10, 0.3)):
        assert most_samples(count, share) == (count - len(part(count, share, 0))) // 2
    counts = np.bincount(np.concatenate([part(10, 0.5, seed) for seed in range(400)]))
    assert np.abs(counts - 200).max() < 4 * 10  # each row as often: four standard deviations
    with pytest.raises(ValueError, match=r"share: 0\.1 of 5 rows leaves a side empty"):
        part(5, 0.1, 0)


def new_digits() -> RawData:
    return load_source({"kind": "digits"})


@pytest.mark.parametrize("number", range(NUMBERS))
def test_the_shipped_judge_of_digits_knows_them_and_has_seen_none(number: int) -> None:
    raw, judge = new_digits(), load_extractor(shipped_file("digits", number))
    assert isinstance(judge, Classifier)
    assert raw.labels is not None
    features = judge.features(torch.from_numpy(raw.x))
    assert features.dtype == torch.float32
    assert accuracy(judge, features, torch.from_numpy(raw.labels)) > 0.95
    assert not judge.has_seen(raw.x).any()
    assert len(judge.seen) > 19_900


@pytest.mark.parametrize(("name", "right"), [("mnist", 0.98), ("fashion_mnist", 0.87)])
def test_the_shipped_judges_have_seen_a_sixth_of_the_training_images(
    name: str, right: float, real_images: Path
) -> None:
    kind = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    description = {"kind": "torchvision", "name": kind, "root": str(real_images)}
    assert shipped_for(description) == name
    raw = load_source(description)
    assert raw.labels is not None
    assert raw.held_out is not None
    for number in range(NUMBERS):
        judge = load_extractor(shipped_file(name, number))
        assert isinstance(judge, Classifier)
        seen = judge.has_seen(raw.x)
        assert seen.sum() == pytest.approx(10_000, abs=10)  # an image occurs twice, or not
        assert seen[raw.held_out].sum() <= 1
        new = raw.held_out & (np.arange(len(seen)) % 5 == 0)
        share = accuracy(
            judge, judge.features(torch.from_numpy(raw.x[new])), torch.from_numpy(raw.labels[new])
        )
        assert share > right - 3 * np.sqrt(right * (1 - right) / new.sum())


def test_mnist_in_the_form_of_the_digits_looks_like_them(real_images: Path) -> None:
    """Ink and the mean image: what preprocessing does, whoever writes."""
    raw = load_source({"kind": "torchvision", "name": "MNIST", "root": str(real_images)})
    like, digits = as_digits(raw.x[:3000], seed=0), new_digits().x
    assert like.shape == (3000, 1, 8, 8)
    assert (int(like.min()), int(like.max())) == (0, 16)
    assert like.mean() == pytest.approx(digits.mean(), rel=0.1)
    mine, theirs = like.mean(0).ravel(), digits.mean(0).ravel()
    assert np.corrcoef(mine, theirs)[0, 1] > 0.9
    assert np.array_equal(like[:100], as_digits(raw.x[:3000], seed=0)[:100])


def test_another_file_than_the_shipped_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SHA256) == 3 * NUMBERS
    assert shipped_for({"kind": "digits"}) == "digits"
    assert shipped_for({"kind": "torchvision", "name": "CIFAR10"}) is None
    assert shipped_for({"kind": "folder"}) is None
    with pytest.raises(ValueError, match=r"digits_3: no such classifier, allowed: digits_0, "):
        shipped_file("digits", 3)
    monkeypatch.setitem(SHA256, "digits_0.safetensors", "0" * 64)
    with pytest.raises(ValueError, match=r"digits_0\.safetensors: has SHA-256 3617.*not 0000"):
        shipped_file("digits", 0)
