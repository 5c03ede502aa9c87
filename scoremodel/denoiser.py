"""The trained object: a denoiser D(x_t, t), and its score.

Denoised mean, noise, score and v are one linear map apart (Tweedie's formula; `convert`):

    D(x_t, t) = E[x_0 | x_t],        ∇ log p_t(x_t) = (alpha_t D − x_t) / sigma_t² = −ε / sigma_t.

The network F inside is preconditioned so that its input and its target have unit variance at every
noise level r = sigma_t / alpha_t (Karras, Aittala, Aila, Laine: Elucidating the Design Space of
Diffusion-Based Generative Models, 2022, arXiv:2206.00364):

    y = x_t / alpha_t − m,
    D = m + c_skip y + c_out F(c_in y, c_noise),
    c_skip = s² / (s² + r²),   c_out = s r / sqrt(s² + r²),   c_in = 1 / sqrt(s² + r²),
    c_noise = ln(r) / 4,

with m and s the mean and standard deviation of the data themselves (EDM takes 0 and ½). Other
choices of c_skip and c_out make F predict the noise, v, or the data (`preconditioning`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from scoremodel.bounds import Bounds, Positive, Size, check_arguments
from scoremodel.networks.base import build_network
from scoremodel.networks.energy import Energy
from scoremodel.parametrisation import Denoise, Preconditioning, convert, preconditioning
from scoremodel.processes.base import Process, check_saveable, column

__all__ = ["Denoiser", "as_channels_last"]


def _c_noise(ratio: Tensor) -> Tensor:
    """Return ln(r) / 4, finite at r = 0, where the network's output has the weight c_out = 0."""
    return ratio.clamp(min=1e-8).log() / 4


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
        classes: number of classes of a class-conditional model, None for an unconditional one.
        preconditioning: what the network inside predicts, see `preconditioning`.
        energy: whether what the network predicts is the gradient of a scalar, see `Energy`; the
            model then has an unnormalised density, see `Denoiser.energy`.

    Raises:
        ValueError: if the network or the mean does not fit the shape, another argument is not
            allowed, or the process could not be saved.
    """

    def __init__(
        self,
        network: dict[str, Any],
        process: Process,
        shape: Sequence[int],
        mean: Sequence[float],
        std: Positive,
        levels: Annotated[int, Bounds(ge=2, le=65_536)] | None = None,
        classes: Size | None = None,
        preconditioning: Preconditioning = "edm",
        energy: bool = False,
    ) -> None:
        super().__init__()
        given = {"std": std, "levels": levels, "classes": classes}
        check_arguments("denoiser", Denoiser.__init__, given | {"preconditioning": preconditioning})
        check_saveable(process)
        if len(mean) != shape[0]:
            raise ValueError(f"data of shape {tuple(shape)} need {shape[0]} means, got {len(mean)}")
        self.network_config = dict(network)
        self.process = process
        self.shape = tuple(shape)
        self.std = float(std)
        self.levels = levels
        self.classes = classes
        self.preconditioning: Preconditioning = preconditioning
        self.info: dict[str, Any] = {}
        self.ema_half_life: float | None = None
        inner = build_network(network, shape, classes)
        self.network = Energy(inner) if energy else inner
        self.register_buffer("mean", torch.tensor(mean).view(len(mean), *(1,) * (len(shape) - 1)))

    @property
    def data_mean(self) -> Tensor:
        """The data's mean with shape (C, 1, 1) or (D,)."""
        return self.get_buffer("mean")

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the denoised mean E[x_0 | x_t], or E[x_0 | x_t, class], with the shape of x_t.

        Data x_t have shape (B, *shape), times shape (B,), and labels, class numbers 0 … classes − 1 or
        −1 for no class, shape (B,); None is no class for all. What does not fit gets a ValueError.
        """
        return self.along(self.process, labels)(x_t, t)

    def along(
        self, process: Process, labels: Tensor | None = None, guidance: float = 1.0
    ) -> Denoise:
        """Return this denoiser as a function (x_t, t) → E[x_0 | x_t] of any process.

        At time t the data of any process, divided by alpha_t, are data with noise of standard
        deviation r = sigma_t / alpha_t; that is all the network is told. With labels the function is

            D = D(x_t, no class) + w (D(x_t, class) − D(x_t, no class)),

        classifier-free guidance of scale w (Ho and Salimans 2022, arXiv:2207.12598, whose w is
        ours minus 1), which takes two network calls unless w is 0 or 1.

        Args:
            process: the process along which x_t lies.
            labels: see `forward`; one for each data point that the function will be given.
            guidance: w; 1 is the model of the class, 0 the model of no class.

        Returns:
            The function.

        Raises:
            ValueError: if the model knows no classes, or the labels are wrong.
        """
        # Labels on another device have been checked by who put them there: looking at them would wait.
        if labels is None or labels.device.type == "cpu":
            labels = self.checked(labels, guidance)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            if x_t.shape[1:] != self.shape:
                raise ValueError(
                    f"this model's data have shape (B, {', '.join(map(str, self.shape))}), "
                    f"got {tuple(x_t.shape)}"
                )
            if labels is not None and labels.shape != t.shape:
                raise ValueError(
                    f"{len(x_t)} data points need labels of shape {tuple(t.shape)}, "
                    f"got {tuple(labels.shape)}"
                )
            y = x_t / column(process.alpha(t), x_t)
            ratio = process.ratio(t)
            scales = preconditioning(column(ratio, y), self.std, self.preconditioning)
            return self._guided(y, scales, _c_noise(ratio), labels, guidance)

        return denoise

    def stepwise(
        self, process: Process, times: Sequence[float], guidance: float = 1.0
    ) -> Callable[[Tensor, float, Tensor | None], Tensor]:
        """Return `along`'s function for one time of the whole batch, its coefficients as floats.

        It is called with x_t (B, *shape), one of `times`, and labels as `checked` returns them.
        """
        t = torch.tensor(times, dtype=torch.float64)
        ratio = process.ratio(t)
        c_noise = _c_noise(ratio).to(self.data_mean).unbind()
        shrink = (1 / process.alpha(t)).tolist()
        scales = [preconditioning(r, self.std, self.preconditioning) for r in ratio.tolist()]
        known = dict(zip(times, zip(shrink, scales, c_noise, strict=True), strict=True))

        def denoise(x_t: Tensor, t: float, labels: Tensor | None) -> Tensor:
            shrink, scales, c_noise = known[t]
            return self._guided(x_t * shrink, scales, c_noise.expand(len(x_t)), labels, guidance)

        return denoise

    def checked(self, labels: Tensor | None, guidance: float) -> Tensor | None:
        """Return the labels (int64) on this model's device, None for no class at all.

        Raises ValueError if the model knows no classes, or a label or the guidance is out of range.
        """
        if not guidance >= 0:
            raise ValueError(f"guidance must be at least 0, got {guidance}")
        if self.classes is None:
            if labels is not None or guidance != 1.0:
                raise ValueError(
                    "this model is unconditional: it takes no labels and no guidance but 1, "
                    f"got guidance={guidance}"
                )
            return None
        if labels is None:
            if guidance not in (0.0, 1.0):
                raise ValueError(f"guidance={guidance} needs labels, towards which it guides")
            return None
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or high >= self.classes:
            raise ValueError(
                f"labels must be from 0 to {self.classes - 1}, or -1 for no class, "
                f"got {low} … {high}"
            )
        if guidance == 0.0:
            return None
        return labels.to(self.data_mean.device, torch.int64)

    def _guided(
        self,
        y: Tensor,
        scales: tuple[Any, Any, Any],
        c_noise: Tensor,
        labels: Tensor | None,
        guidance: float,
    ) -> Tensor:
        """Return D for y = x_t / alpha_t; `scales` are c_skip, c_out and c_in, numbers or columns."""
        c_skip, c_out, c_in = scales
        y = y - self.data_mean
        if labels is None or guidance == 1.0:
            f = self.network(c_in * y, c_noise, labels)
        else:
            none = torch.full_like(labels, -1)
            both = self.network(
                (c_in * y).repeat(2, *(1,) * len(self.shape)),
                c_noise.repeat(2),
                torch.cat([none, labels]),
            )
            without, with_class = both.chunk(2)
            f = torch.lerp(without, with_class, guidance)
        denoised: Tensor = self.data_mean + c_skip * y + c_out * f
        return denoised

    def score(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the score ∇ log p_t(x_t) = (alpha_t D − x_t) / sigma_t², arguments as `forward`."""
        return convert(self(x_t, t, labels), x_t, t, self.process, "denoised", "score")

    def energy(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the energy f(x_t, t) = −ln p_t(x_t) up to a constant of t (B,); the score is −∇ f.

        With y = x_t / alpha_t − m, r = sigma_t / alpha_t and the network's scalar ψ:

            f = (1 − c_skip) |y|² / (2 r²) − c_out / (c_in r²) ψ(c_in y, c_noise)

        Arguments as `forward`, of a model made with `energy=True`. Song and Kingma, How to Train Your
        Energy-Based Models, 2021, arXiv:2101.03288.
        """
        if not isinstance(self.network, Energy):
            raise ValueError("this model has a score but no energy; make it with energy=True")
        ratio = self.process.ratio(t)
        c_skip, c_out, c_in = preconditioning(ratio, self.std, self.preconditioning)
        y = x_t / column(self.process.alpha(t), x_t) - self.data_mean
        psi = self.network.potential(
            column(c_in, y) * y, _c_noise(ratio), self.checked(labels, 1.0)
        )
        squared = y.square().flatten(1).sum(1)
        f: Tensor = ((1 - c_skip) * squared / 2 - c_out / c_in * psi) / ratio**2
        return f

    def config(self) -> dict[str, Any]:
        """Return what is needed, beside the weights, to make this denoiser again."""
        return {
            "network": self.network_config,
            "sde": self.process.config(),
            "shape": list(self.shape),
            "mean": [float(value) for value in self.data_mean.flatten()],
            "std": self.std,
            "levels": self.levels,
            "classes": self.classes,
            "preconditioning": self.preconditioning,
            "energy": isinstance(self.network, Energy),
        }


def as_channels_last(denoiser: Denoiser) -> Denoiser:
    """Return `denoiser`, its convolutions in the memory layout that is fastest for images."""
    if len(denoiser.shape) == 3:
        denoiser.to(memory_format=torch.channels_last)
    return denoiser
