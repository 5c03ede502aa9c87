"""The kinds of networks by name, and what is asked of each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from scoremodel.bounds import check_arguments, shown
from scoremodel.registry import Registry

__all__ = [
    "NETWORKS",
    "WithoutLabels",
    "allow_second_derivatives",
    "arguments_of",
    "build_network",
    "misfit",
    "taking_labels",
]

NETWORKS: Registry[Any] = Registry("scoremodel.networks", "network")
"""Classes whose first argument is the data's first dimension. They are registered with `dimensions`,
the number of the data's dimensions, and with `sized` if they are made for one size of images: then they
have the arguments `multipliers`, `attention_resolutions` and `resolution`, and halve both sides between
one level and the next."""


def build_network(
    config: Mapping[str, Any], shape: Sequence[int], classes: int | None = None
) -> nn.Module:
    """Return a new network for data of this shape: `config` is its "kind" and its keyword arguments.

    Raises ValueError if the kind is unknown or does not fit the shape, or an argument is not allowed.
    """
    kind: Any = config.get("kind")
    if kind not in NETWORKS:
        raise ValueError(
            f"unknown network {shown(kind)}, allowed: {', '.join(NETWORKS)}, or one whose module, with "
            'its @NETWORKS.register("…"), is imported before'
        )
    if NETWORKS[kind].dimensions != len(shape):
        fitting = [name for name, one in NETWORKS.items() if one.dimensions == len(shape)]
        raise ValueError(
            f"network {kind!r} does not fit data of shape {tuple(shape)}, "
            f"allowed: {', '.join(fitting)}"
        )
    given = {name: value for name, value in config.items() if name != "kind"}
    check_arguments(kind, NETWORKS[kind].__init__, given)
    wrong = misfit(config, shape)
    if wrong is not None:
        key, value, allowed = wrong
        raise ValueError(f"{kind}: {key}: {shown(value)} is not allowed, allowed: {allowed}")
    network: nn.Module = NETWORKS.make(kind, shape[0], **arguments_of(config, shape, classes))
    return network


def arguments_of(
    config: Mapping[str, Any], shape: Sequence[int], classes: int | None
) -> dict[str, Any]:
    """Return a network's keyword arguments, those that follow from the data among them.

    Args:
        config: its "kind" and its own arguments.
        shape: shape of one data point.
        classes: number of classes of a conditional network, None for an unconditional one.

    Returns:
        All but its first argument.
    """
    sized = getattr(NETWORKS[config["kind"]], "sized", False)
    given = {name: value for name, value in config.items() if name != "kind"}
    return {"classes": classes, **({"resolution": max(shape[1:])} if sized else {}), **given}


def misfit(config: Mapping[str, Any], shape: Sequence[int]) -> tuple[str, Any, str] | None:
    """Return which argument of a network that is made for one size of images does not fit that size.

    Args:
        config: its "kind" and its own arguments.
        shape: shape of one data point.

    Returns:
        The argument, its value and in words what is allowed; None if all fit.
    """
    made = NETWORKS[config["kind"]]
    if not getattr(made, "sized", False):
        return None
    known = inspect.signature(made).parameters
    multipliers, attention = (
        config.get(name, known[name].default) for name in ("multipliers", "attention_resolutions")
    )
    sides, levels = shape[1:], len(multipliers)
    images = f"images of {'×'.join(map(str, sides))} pixels"
    if any(side % 2 ** (levels - 1) for side in sides):
        most = next(
            n for n in range(levels - 1, 0, -1) if not any(side % 2 ** (n - 1) for side in sides)
        )
        return (
            "multipliers",
            multipliers,
            f"at most {most} of them, one a level, for {images}, which are halved between two levels",
        )
    found = [max(sides) >> level for level in range(levels)]
    if not set(attention) <= set(found):
        allowed = (
            f"some of {', '.join(map(str, found))}, the longer sides of the levels of {images}"
        )
        return "attention_resolutions", attention, allowed
    return None


class WithoutLabels(nn.Module):
    """A network F(x, c_noise) that knows no classes, called as all are: F(x, c_noise, labels).

    Args:
        inner: the network.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F; of an unconditional model `labels` are None."""
        f: Tensor = self.inner(x, c_noise)
        return f


def taking_labels(network: nn.Module, classes: int | None) -> nn.Module:
    """Return a network that is called with (x, c_noise, labels), whether or not `network` is.

    Which it is follows from the signature of its `forward`.

    Args:
        network: the network.
        classes: number of classes of the data, None for unconditional models.

    Returns:
        The network itself, or `WithoutLabels` of it.

    Raises:
        ValueError: if it can be called neither way, or lacks the labels that classes need.
    """
    signature = inspect.signature(network.forward)
    name = type(network).__name__
    for arguments in (("x", "c_noise", "labels"), ("x", "c_noise")):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        if len(arguments) == 3:
            return network
        if classes is None:
            return WithoutLabels(network)
    needed = "" if classes is None else f", which a model of {classes} classes needs"
    raise ValueError(
        f"network {name}: forward{signature} is not allowed, allowed: forward(x, c_noise, labels)"
        f"{needed or ' or forward(x, c_noise)'}"
    )


def allow_second_derivatives(network: nn.Module) -> None:
    """Have every layer computed in a way whose derivative has a derivative; results differ by rounding.

    A layer for which that is not so by itself, such as attention with its fast kernels, has a method
    of this name.
    """
    for layer in network.modules():
        allow = getattr(layer, "allow_second_derivatives", None)
        if allow is not None:
            allow()
