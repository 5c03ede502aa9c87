"""A judge that is trained on real data is judged on others: what it has seen is kept out of the floor."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scoremodel.data.sources.base import load_source
from scoremodel.evaluation.distance import frechet_distance, moments, real_floor
from scoremodel.evaluation.extractors.base import image_hashes, load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import (
    Classifier,
    accuracy,
    part,
    rotations,
    train_classifier,
)
from scoremodel.evaluation.extractors.identity import Identity
from scoremodel.evaluation.extractors.shipped import NUMBERS, SHA256, shipped_file, shipped_for
from scoremodel.evaluation.extractors.shipped.__main__ import as_digits
from scoremodel.evaluation.reference import Reference

Generated = tuple[NDArray[np.uint8], NDArray[np.int64]]


def blobs(labels: NDArray[np.integer], draw: np.random.Generator) -> NDArray[np.uint8]:
    """Return images of one bright spot, 8×8 pixels and 17 levels; the class is where it is."""
    middle = np.array([[2.0, 2.0], [5.0, 2.5], [3.5, 5.5]])[labels]
    middle = middle + draw.normal(0, 1.5, (len(labels), 2))
    y, x = np.mgrid[:8, :8]
    away = (y - middle[:, :1, None]) ** 2 + (x - middle[:, 1:, None]) ** 2
    grey = 14 * np.exp(-away / 4) + draw.normal(0, 2.5, away.shape)
    return grey.round().clip(0, 16).astype(np.uint8)[:, None]


def too_high(seed: int, share: float | None) -> float:
    """Return by which part the floor of 300 images is above what new images of its number score.

    Half of the images are to train on; a judge is trained on a share of them, or on all.
    """
    draw = np.random.default_rng(seed)
    labels = np.arange(150) % 3  # a stratified split
    train, held_out = blobs(labels, draw), blobs(labels, draw)
    seen = np.arange(150) if share is None else part(150, share, seed, labels)
    judge = train_classifier(
        torch.from_numpy(train[seen]), torch.from_numpy(labels[seen]), 17, seed, epochs=40
    )

    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return judge.features(torch.from_numpy(images)).numpy()

    fresh = None if share is None else np.flatnonzero(~judge.has_seen(train))
    real = Reference(features(train), features(held_out), 448, 0, fresh=fresh)
    floor = real_floor(real.fresh, real.held_out, 448, 0, 20, labels[real.fresh_rows])
    assert floor.count == (75 if share is None else 37)
    new = [
        frechet_distance(
            features(blobs(draw.integers(0, 3, floor.count), draw)), real.held_out_moments
        )
        for _ in range(20)
    ]
    return floor.value / float(np.mean(new)) - 1


def test_new_images_lie_at_the_floor_of_fresh_rows_and_not_at_that_of_seen_ones() -> None:
    import os

    for share in (0.5, None):
        found = [too_high(seed, share) for seed in range(int(os.environ["R"]))]
        error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
        print(share, np.mean(found), error, np.round(found, 2))
