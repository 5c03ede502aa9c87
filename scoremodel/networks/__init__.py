"""Networks F(x, c_noise, labels): the U-Net for images, the MLP for vectors, either one's energy.

Both take x with shape (B, *shape), the noise embedding's input c_noise with shape (B,) and, if they
were made for classes, class numbers with shape (B,), and return the shape of x. Both are made from
plain dictionaries, so that a file of weights can say what it is the weights of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from scoremodel.networks.energy import Energy
from scoremodel.networks.mlp import MLP
from scoremodel.networks.unet import UNet, allow_second_derivatives

__all__ = ["MLP", "Energy", "UNet", "allow_second_derivatives", "build_network"]


def build_network(
    config: dict[str, Any], shape: Sequence[int], classes: int | None = None
) -> nn.Module:
    """Return the network that `config` describes for data of `shape`.

    Args:
        config: "kind" ("unet" or "mlp") and that network's keyword arguments.
        shape: shape of one data point: (C, H, W) for the U-Net, (D,) for the MLP.
        classes: number of classes of a conditional network, None for an unconditional one.

    Returns:
        A network F(x, c_noise, labels) with freshly initialised weights.

    Raises:
        ValueError: if the kind is unknown or does not fit the shape.
    """
    parameters = dict(config)
    kind = parameters.pop("kind", None)
    if kind == "unet" and len(shape) == 3:
        return UNet(channels=shape[0], classes=classes, **parameters)
    if kind == "mlp" and len(shape) == 1:
        return MLP(features=shape[0], classes=classes, **parameters)
    raise ValueError(
        f"network kind {kind!r} does not fit data of shape {tuple(shape)}, "
        "allowed: 'unet' for (C, H, W), 'mlp' for (D,)"
    )
