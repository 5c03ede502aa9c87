"""The published trainings on the page on training: they are allowed, and say what was published."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import learning_rate
from tasks.params.filled import lay_over
from tasks.params.load import read_yaml
from tasks.params.schema import Model
from tasks.train import training_config
from tests.workspace import ROOT


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Any, TrainingConfig]]:
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## Published trainings\n.*?```yaml\n(.*?)```", text, re.DOTALL)
    defaults = read_yaml(ROOT / "params.yaml")["defaults"]["model"]
    found = {}
    for name, said in YAML(typ="safe", pure=True).load(block)["models"].items():
        whole = Model.model_validate(lay_over(defaults, said)).model_dump(exclude_unset=True)
        found[name] = whole, training_config(whole["training"])
    return found


def test_they_see_as_many_images_as_was_published_and_learn_as_fast(
    models: dict[str, tuple[Any, TrainingConfig]],
) -> None:
    """Per recipe: images in all, largest learning rate, images of warm-up, learning rate at the end."""
    published = {
        "song_ve": (166.4e6, 2e-4, 640e3, 2e-4),
        "edm": (200e6, 1e-3, 10e6, 1e-3),
        "edm2": (2**30, 1e-2, 10e6, 1e-2 * math.sqrt(35_000 / 2**19)),
    }
    assert set(models) == set(published)
    for name, (images, largest, warm, last) in published.items():
        config = models[name][1]
        assert config.steps * config.batch_size == images
        rises = round(warm / config.batch_size)
        assert learning_rate(rises - 1, config) == pytest.approx(largest, rel=1e-3)
        assert learning_rate(rises // 2 - 1, config) == pytest.approx(largest / 2, rel=1e-3)
        assert learning_rate(config.steps - 1, config) == pytest.approx(last, rel=1e-3)


def test_their_averages_and_noise_are_the_published_ones(
    models: dict[str, tuple[Any, TrainingConfig]],
) -> None:
    whole, song = models["song_ve"]
    assert 2 ** (-song.batch_size / song.ema_half_lives[0]) == pytest.approx(0.999, abs=1e-6)
    assert 2 ** (-song.batch_size / 887_000) == pytest.approx(0.9999, abs=1e-7)
    # sigma 0.01 … 50 of data in [0, 1], twice that in [−1, 1].
    assert (whole["sde"]["sigma_min"] / 2, whole["sde"]["sigma_max"] / 2) == (0.01, 50)
    assert models["edm2"][1].averages == (0.05, 0.1)
