"""The kinds of networks by name, and what is asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from scoremodel.bounds import check_arguments
from scoremodel.registry import Registry

__all__ = ["NETWORKS", "allow_second_derivatives", "build_network"]

NETWORKS: Registry[Any] = Registry("scoremodel.networks", "network")
"""Classes whose first argument is the data's first dimension. They are registered with `dimensions`,
the number of the data's dimensions."""


def build_network(
    config: dict[str, Any], shape: Sequence[int], classes: int | None = None
) -> nn.Module:
    """Return a new network for data of this shape: `config` is its "kind" and its keyword arguments.

    Raises ValueError if the kind is unknown or does not fit the shape, or an argument is not allowed.
    """
    parameters = dict(config)
    kind = parameters.pop("kind", None)
    if kind not in NETWORKS or NETWORKS[kind].dimensions != len(shape):
        fitting = [name for name, one in NETWORKS.items() if one.dimensions == len(shape)]
        raise ValueError(
            f"network {kind!r} does not fit data of shape {tuple(shape)}, "
            f"allowed: {', '.join(fitting)}"
        )
    check_arguments(kind, NETWORKS[kind].__init__, parameters)
    network: nn.Module = NETWORKS.make(kind, shape[0], classes=classes, **parameters)
    return network


def allow_second_derivatives(network: nn.Module) -> None:
    """Have every layer computed in a way whose derivative has a derivative; results differ by rounding.

    A layer for which that is not so by itself, such as attention with its fast kernels, has a method
    of this name.
    """
    for layer in network.modules():
        allow = getattr(layer, "allow_second_derivatives", None)
        if allow is not None:
            allow()
