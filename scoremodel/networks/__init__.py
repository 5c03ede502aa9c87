"""Networks F(x, c_noise, labels): U-Nets for images, the MLP for vectors, any one's energy.

All take x with shape (B, *shape), the noise embedding's input c_noise with shape (B,) and, if they
were made for classes, class numbers with shape (B,), −1 for no class, and return F with the shape of
x. They are made from plain dictionaries, so that a file of weights can say what it is the weights of.

A network of your own is a module of that form, or F(x, c_noise) where there are no classes:
`Denoiser(Mine(…), …)` takes it as it is. With a name it is made from a dictionary too, and its
weights are loaded without being told what they are of:

    @NETWORKS.register("mine", dimensions=3)
    class Mine(nn.Module):
        def __init__(self, channels, ..., classes=None): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.networks.base import NETWORKS, allow_second_derivatives, build_network
    from scoremodel.networks.energy import Energy
    from scoremodel.networks.mlp import MLP
    from scoremodel.networks.unet import UNet

__all__ = ["MLP", "NETWORKS", "Energy", "UNet", "allow_second_derivatives", "build_network"]

__getattr__, __dir__ = lazy(__name__)
