"""Networks F(x, c_noise): the U-Net for images, the MLP for vectors.

Both take x with shape (B, *shape) and the noise embedding's input c_noise with shape (B,), and
return the shape of x. Both are made from plain dictionaries, so that a file of weights can say what
it is the weights of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from scoremodel.networks.mlp import MLP
from scoremodel.networks.unet import UNet

__all__ = ["MLP", "UNet", "build_network"]


def build_network(config: dict[str, Any], shape: Sequence[int]) -> nn.Module:
    """Return the network that `config` describes for data of `shape`.

    Args:
        config: "kind" ("unet" or "mlp") and that network's keyword arguments.
        shape: shape of one data point: (C, H, W) for the U-Net, (D,) for the MLP.

    Returns:
        A network F(x, c_noise) with freshly initialised weights.

    Raises:
        ValueError: if the kind is unknown or does not fit the shape.
    """
    parameters = dict(config)
    kind = parameters.pop("kind", None)
    if kind == "unet" and len(shape) == 3:
        return UNet(channels=shape[0], **parameters)
    if kind == "mlp" and len(shape) == 1:
        return MLP(features=shape[0], **parameters)
    raise ValueError(
        f"network kind {kind!r} does not fit data of shape {tuple(shape)}, "
        "allowed: 'unet' for (C, H, W), 'mlp' for (D,)"
    )
