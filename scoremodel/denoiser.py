"""The trained object: a denoiser D(x_t, t), and its score.

Score, noise and denoised mean are one linear map apart (Tweedie's formula):

    D(x_t, t) = E[x_0 | x_t],        ∇ log p_t(x_t) = (alpha_t D − x_t) / sigma_t² = −ε / sigma_t.

The network F inside is preconditioned so that its input and its target have unit variance at every
noise level r = sigma_t / alpha_t (Karras, Aittala, Aila, Laine: Elucidating the Design Space of
Diffusion-Based Generative Models, 2022, arXiv:2206.00364):

    y = x_t / alpha_t − m,
    D = m + c_skip y + c_out F(c_in y, c_noise),
    c_skip = s² / (s² + r²),   c_out = s r / sqrt(s² + r²),   c_in = 1 / sqrt(s² + r²),
    c_noise = ln(r) / 4,

with m and s the mean and standard deviation of the data themselves (EDM takes 0 and ½).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scoremodel.chains import process_from_config
from scoremodel.networks import build_network
from scoremodel.sde import Process
from scoremodel.weights import read_weights, write_weights

__all__ = ["Denoise", "Denoiser", "as_channels_last", "load", "save", "score_from_denoised"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Anything that maps (x_t with shape (B, *), t with shape (B,)) to E[x_0 | x_t] with shape (B, *)."""


def score_from_denoised(denoised: Tensor, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
    """Return the score (alpha_t D − x_t) / sigma_t².

    Args:
        denoised: D(x_t, t) with shape (B, *).
        x_t: noisy data with shape (B, *).
        t: times with shape (B,).
        process: the process that made x_t.

    Returns:
        ∇ log p_t(x_t) with shape (B, *).
    """
    column = (-1, *(1,) * (x_t.ndim - 1))
    return (process.alpha(t).view(column) * denoised - x_t) / process.sigma(t).view(column) ** 2


class Denoiser(nn.Module):
    """A network preconditioned as a denoiser D(x_t, t) of a forward process.

    The network itself knows the noise level r only, so one trained denoiser serves every process
    (`along`).

    Args:
        network: configuration of the network, see `build_network`.
        process: the forward process it is trained on.
        shape: shape of one data point, (C, H, W) or (D,).
        mean: the data's mean, one number per channel (images) or per dimension (vectors).
        std: the data's standard deviation around that mean, one number.
        levels: number of grey levels of the data's pixels, None for real-valued data.

    Raises:
        ValueError: if the network does not fit the shape, or mean and std do not.
    """

    def __init__(
        self,
        network: dict[str, Any],
        process: Process,
        shape: Sequence[int],
        mean: Sequence[float],
        std: float,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != shape[0] or not std > 0:
            raise ValueError(
                f"data of shape {tuple(shape)} need {shape[0]} means and std > 0, "
                f"got {len(mean)} means and std={std}"
            )
        self.network_config = dict(network)
        self.process = process
        self.shape = tuple(shape)
        self.std = float(std)
        self.levels = levels
        self.info: dict[str, Any] = {}
        self.network = build_network(network, shape)
        column = (len(mean), *(1,) * (len(shape) - 1))
        self.register_buffer("mean", torch.tensor(mean).view(column))

    @property
    def data_mean(self) -> Tensor:
        """The data's mean with shape (C, 1, 1) or (D,)."""
        return self.get_buffer("mean")

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the denoised mean D(x_t, t).

        Args:
            x_t: noisy data with shape (B, *shape).
            t: times in [0, 1] with shape (B,).

        Returns:
            E[x_0 | x_t] with shape (B, *shape).
        """
        return self.along(self.process)(x_t, t)

    def along(self, process: Process) -> Denoise:
        """Return this denoiser as a function (x_t, t) → E[x_0 | x_t] of another process.

        At time t the data of any process, divided by alpha_t, are data with noise of standard
        deviation r = sigma_t / alpha_t; that is all the network is told.
        """
        column = (-1, *(1,) * len(self.shape))

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            y = x_t / process.alpha(t).view(column)
            return self.at_ratio(y, process.ratio(t))

        return denoise

    def at_ratio(self, y: Tensor, ratio: Tensor) -> Tensor:
        """Return E[x_0 | x_0 + ratio · ε = y].

        Args:
            y: noisy data x_t / alpha_t with shape (B, *shape).
            ratio: noise levels r with shape (B,).

        Returns:
            The denoised mean with shape (B, *shape).
        """
        column = (-1, *(1,) * len(self.shape))
        total = (self.std**2 + ratio**2).view(column)
        y = y - self.data_mean
        f = self.network(y * total.rsqrt(), ratio.log() / 4)
        c_out = self.std * ratio.view(column) * total.rsqrt()
        denoised: Tensor = self.data_mean + self.std**2 / total * y + c_out * f
        return denoised

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the score ∇ log p_t(x_t) with shape (B, *shape), arguments as `forward`."""
        return score_from_denoised(self(x_t, t), x_t, t, self.process)

    def config(self) -> dict[str, Any]:
        """Return what is needed, beside the weights, to make this denoiser again."""
        return {
            "network": self.network_config,
            "sde": self.process.config(),
            "shape": list(self.shape),
            "mean": [float(value) for value in self.data_mean.flatten()],
            "std": self.std,
            "levels": self.levels,
        }


def save(
    denoiser: Denoiser, path: str | os.PathLike[str], info: dict[str, Any] | None = None
) -> None:
    """Write weights and configuration as one safetensors file, whole or not at all.

    Args:
        denoiser: the model.
        path: file to write.
        info: anything else worth keeping with the weights, as JSON; must repeat from run to run.
    """
    write_weights(path, denoiser, {"config": denoiser.config(), "info": info or {}})


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Denoiser:
    """Return the denoiser that `save` wrote, in evaluation mode; nothing is unpickled.

    Args:
        path: a safetensors file.
        device: where the weights go.

    Returns:
        The denoiser; what was saved as `info` is its attribute `info`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was not written by `save`.
    """
    tensors, stored = read_weights(path, device)
    config = stored.get("config", {})
    if "sde" not in config:
        raise ValueError(f"{os.fspath(path)}: holds no denoiser")
    denoiser = Denoiser(process=process_from_config(config.pop("sde")), **config)
    denoiser.load_state_dict(tensors)
    denoiser.info = stored["info"]
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return as_channels_last(denoiser)


def as_channels_last(denoiser: Denoiser) -> Denoiser:
    """Return `denoiser`, its convolutions in the memory layout that is fastest for images."""
    if len(denoiser.shape) == 3:
        denoiser.to(memory_format=torch.channels_last)
    return denoiser
