"""A judge that tells nothing apart says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks import extractor

HOW = {"share": 0.5, "seed": 0, "epochs": 4}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor.Machine, "read", lambda: None)
    monkeypatch.setattr(extractor, "set_up_device", lambda machine: torch.device("cpu"))


def test_turns_of_plain_images_are_guessed_and_bars_are_told_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An image of one colour is the same in every turn; a bright top row is not."""
    grey = np.random.default_rng(0).integers(0, 256, (2, 80, 1, 1, 1))
    plain = np.broadcast_to(grey, (2, 80, 1, 8, 8)).astype(np.uint8)
    barred = plain // 2
    barred[..., 0, :] = 255
    for images, guessed in ((plain, True), (barred, False)):
        data = {"train": images[0], "held_out": images[1]}
        list(extractor._trained(data, HOW, 256, 0))
        said = "no more than chance (25.0%): its features say little" in capsys.readouterr().out
        assert said == guessed


def test_one_class_is_nothing_to_tell_apart(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 20, 1, 8, 8)).astype(np.uint8)
    labels = np.zeros(20, np.int64)
    data = {"train": images[0], "held_out": images[1]}
    data |= {"train_labels": labels, "held_out_labels": labels}
    list(extractor._trained(data, HOW, 256, 0))
    assert "no more than chance (100.0%)" in capsys.readouterr().out
