"""What is active: the configurations of `params.yaml`, in the order in which everything shows them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tasks.files.layout import Configuration
from tasks.params.schema import Params

__all__ = ["active_configurations", "active_models"]


def active_configurations(params: Params) -> Iterator[Configuration]:
    """Yield every combination of data set, model, training seed and sampler."""
    active = params.active
    for values in product(active.datasets, active.models, active.train_seeds, active.samplers):
        yield Configuration(*values)


def active_models(params: Params, applications: bool = False) -> Iterator[Configuration]:
    """Yield every trained model, or each with everything that it is asked for besides."""
    active = params.active
    asked = active.applications if applications else [""]
    for *values, application in product(
        active.datasets, active.models, active.train_seeds, asked
    ):
        yield Configuration(*values, application=application)
