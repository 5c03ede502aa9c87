"""What is active: the configurations of `params.yaml`, in the order in which everything shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from tasks.files.layout import EXTERNAL, Configuration

__all__ = ["Active", "active_configurations", "active_models", "active_pairs", "called"]

Active = Mapping[str, list[Any]]
"""The content of `active:`, as `check` resolved it."""


def active_configurations(active: Active) -> Iterator[Configuration]:
    """Yield every combination of data set, model, training seed and sampler; then what is from elsewhere."""
    for values in product(
        active["datasets"], active["models"], active["train_seeds"], active["samplers"]
    ):
        yield Configuration(*values)
    for dataset, name in product(active["datasets"], active["external"]):
        yield Configuration(dataset, name, sampler=EXTERNAL)


def called(files: Configuration) -> str:
    """Return what people call a configuration, within its data set."""
    if files.external:
        return f"{files.model}, from elsewhere"
    return f"{files.model}, {files.sampler}, train seed {files.train_seed}"


def active_models(active: Active, applications: bool = False) -> Iterator[Configuration]:
    """Yield every trained model, or each with everything that it is asked for besides."""
    asked = active["applications"] if applications else [""]
    models = product(active["datasets"], active["models"], active["train_seeds"])
    for (dataset, model, seed), application in product(models, asked):
        yield Configuration(dataset, model, seed, application=application)


def active_pairs(active: Active) -> Iterator[tuple[str, Configuration, Configuration]]:
    """Yield a name and the first two models, at the first training seed, of each data set and sampler."""
    models, seed = active["models"], active["train_seeds"][0]
    if len(models) < 2:
        return
    for dataset, sampler in product(active["datasets"], active["samplers"]):
        first, second = (Configuration(dataset, model, seed, sampler) for model in models[:2])
        yield f"{first.name}-beside-{second.model}", first, second
