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

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scoremodel.bounds import Bounds, Positive, Size, check_arguments, shown
from scoremodel.data.moments import mean_and_std
from scoremodel.data.scale import as_data
from scoremodel.networks.base import build_network, taking_labels
from scoremodel.networks.energy import Energy
from scoremodel.parametrisation import Denoise, Preconditioning, convert, preconditioning
from scoremodel.precision import Precision, autocast, resolve_precision
from scoremodel.processes.base import Process, column, has_config

__all__ = ["Denoiser", "LabelsLike", "TimesLike", "as_channels_last", "kernel_of"]

TimesLike = Tensor | Sequence[float] | float
"""Times in [0, 1], one for each data point, or one for all."""

LabelsLike = Tensor | NDArray[np.integer] | Sequence[int] | int
"""Class numbers, −1 for no class: one for each data point, or one for all."""


def _c_noise(ratio: Tensor) -> Tensor:
    """Return ln(r) / 4, finite at r = 0, where the network's output has the weight c_out = 0."""
    return ratio.clamp(min=1e-8).log() / 4


class Denoiser(nn.Module):
    """A network preconditioned as a denoiser D(x_t, t) of a forward process.

    The network itself knows the noise level r only, so one trained denoiser serves every process
    (`along`).

    Args:
        network: the network F(x, c_noise, labels), or F(x, c_noise) where there are no classes, with x
            and F (B, *shape), c_noise (B,) and labels (B,) or None; it is taken as it is, not copied.
            Or its configuration, see `build_network`. One with an attribute `augmented` that is true
            takes the keyword argument `augmentation` too, (B, 9) or None.
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
        ValueError: if the network or the mean does not fit the shape, or another argument is not
            allowed.
        TypeError: if the network is neither, or the process is none.
    """

    def __init__(
        self,
        network: nn.Module | Mapping[str, Any],
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
        for name, value, kind, allowed in (
            ("network", network, nn.Module | Mapping, "a module, or a dictionary with its kind"),
            ("process", process, Process, "a process, such as VP()"),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"denoiser: {name}: {shown(value)} is not allowed, allowed: {allowed}"
                )
        shape, means, std = _whole(shape), _numbers("mean", mean), _numbers("std", [std])[0]
        given = {"std": std, "levels": levels, "classes": classes}
        check_arguments("denoiser", Denoiser.__init__, given | {"preconditioning": preconditioning})
        if len(means) != shape[0]:
            raise ValueError(f"data of shape {shape} need {shape[0]} means, got {len(means)}")
        self.process = process
        self.shape = shape
        self.std = std
        self.levels = levels
        self.classes = classes
        self.preconditioning: Preconditioning = preconditioning
        self.info: dict[str, Any] = {}
        self.ema_half_life: float | None = None
        self.ema_std: float | None = None
        if isinstance(network, nn.Module):
            self.network_config: dict[str, Any] = {"module": type(network).__name__}
            inner = taking_labels(network, classes)
        else:
            self.network_config = dict(network)
            inner = build_network(network, shape, classes)
        self.network = Energy(inner) if energy else inner
        like = next((one for one in inner.parameters() if one.is_floating_point()), torch.empty(()))
        column_of = torch.tensor(means, dtype=like.dtype, device=like.device)
        self.register_buffer("mean", column_of.view(len(means), *(1,) * (len(shape) - 1)))

    @classmethod
    def for_data(
        cls,
        x: Tensor | NDArray[Any],
        network: nn.Module | Mapping[str, Any],
        process: Process,
        *,
        levels: int | None = None,
        **options: Any,
    ) -> Self:
        """Return a denoiser with shape, mean and standard deviation of data.

        Args:
            x: data with shape (N, C, H, W) or (N, D): grey levels 0 … levels − 1, or real values.
            network: see `Denoiser`.
            process: see `Denoiser`.
            levels: number of grey levels of the data's pixels, 256 for 8 bits; None for real values.
            **options: classes, preconditioning and energy, see `Denoiser`.

        Returns:
            The denoiser, untrained.

        Raises:
            ValueError: if the data are none, are not finite, or their kind is not what `levels` says;
                else as `Denoiser`.
            TypeError: as `Denoiser`.
        """
        data = as_data(x, levels)
        values = data.detach().cpu().numpy()
        low, high = values.min(), values.max()
        allowed = "finite values" if levels is None else f"grey levels 0 … {levels - 1}"
        if not np.isfinite([low, high]).all() or (levels and not 0 <= low <= high < levels):
            raise ValueError(f"data from {low} to {high} are not allowed, allowed: {allowed}")
        parts = [values[low : low + 4096] for low in range(0, len(values), 4096)]
        mean, std = mean_and_std(lambda: iter(parts), levels)
        made = cls(network, process, data.shape[1:], mean.tolist(), std, levels, **options)
        return made.to(data.device)

    @property
    def data_mean(self) -> Tensor:
        """The data's mean with shape (C, 1, 1) or (D,)."""
        return self.get_buffer("mean")

    def forward(self, x_t: Tensor, t: TimesLike, labels: LabelsLike | None = None) -> Tensor:
        """Return the denoised mean E[x_0 | x_t], or E[x_0 | x_t, class], with the shape of x_t.

        Data x_t have shape (B, *shape), times shape (B,), and labels, class numbers 0 … classes − 1 or
        −1 for no class, shape (B,); None is no class for all. One time or label alone is that of all.
        It is computed in the model's own floating-point type. What does not fit gets a ValueError.
        """
        return self.along(self.process, labels)(*self._fitting(x_t, t))

    def along(
        self,
        process: Process,
        labels: LabelsLike | None = None,
        guidance: float = 1.0,
        precision: Precision = "float32",
        augmentation: Tensor | None = None,
    ) -> Denoise:
        """Return this denoiser as a function (x_t, t) → E[x_0 | x_t] of any process.

        At time t the data of any process, divided by alpha_t, are data with noise of standard
        deviation r = sigma_t / alpha_t; that is all the network is told. With labels the function is

            D = D(x_t, no class) + w (D(x_t, class) − D(x_t, no class)),

        classifier-free guidance of scale w (Ho and Salimans 2022, arXiv:2207.12598, whose w is
        ours minus 1), which takes two network calls unless w is 0 or 1.

        Args:
            process: the process along which x_t lies.
            labels: see `forward`; one for each data point that the function will be given, or one.
            guidance: w; 1 is the model of the class, 0 the model of no class.
            precision: what the network computes in, see `resolve_precision`; what is around it, the
                result too, stays in this model's type, which is what "float32" means of any model.
            augmentation: what a network that is `augmented` is told of data that are (B, 9), see
                `scoremodel.training.augment`; None is of data as they are.

        Returns:
            The function.

        Raises:
            ValueError: if the model knows no classes, the labels are wrong, or a model in another type
                than float32 is to compute in bfloat16.
        """
        # Labels on another device have been checked by who put them there: looking at them would wait.
        elsewhere = isinstance(labels, Tensor) and labels.device.type != "cpu"
        known: Any = labels if elsewhere else self.checked(labels, guidance)
        precision = self._resolved(precision)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            x_t, t = self._fitting(x_t, t)
            shown = None if known is None else self._of_all(known, x_t)
            y = x_t / column(process.alpha(t), x_t)
            ratio = process.ratio(t)
            scales = preconditioning(column(ratio, y), self.std, self.preconditioning)
            told = {} if augmentation is None else {"augmentation": augmentation}
            return self._guided(y, scales, _c_noise(ratio), shown, guidance, precision, **told)

        return denoise

    def _fitting(self, x_t: Tensor, t: TimesLike) -> tuple[Tensor, Tensor]:
        """Return data and their times (B,) in this model's floating-point type, if they fit it."""
        if not isinstance(x_t, Tensor) or not x_t.is_floating_point():
            what = f"{x_t.dtype}" if isinstance(x_t, Tensor) else shown(x_t)
            raise ValueError(
                f"data x_t: {what} is not allowed, allowed: floating-point tensors on the model's "
                "scale, such as to_unit makes of grey levels"
            )
        if x_t.shape[1:] != self.shape:
            raise ValueError(
                f"this model's data have shape (B, {', '.join(map(str, self.shape))}), "
                f"got {tuple(x_t.shape)}"
            )
        x_t = x_t.to(self.data_mean.dtype)
        try:
            t = torch.as_tensor(t, dtype=x_t.dtype, device=x_t.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"times t: {shown(t)} is not allowed, allowed: a number or a tensor of numbers"
            ) from None
        return x_t, t.expand(len(x_t)) if t.ndim == 0 else t

    @staticmethod
    def _of_all(labels: Tensor, x_t: Tensor) -> Tensor:
        """Return labels with shape (B,), if they fit the data."""
        if labels.ndim and labels.shape != x_t.shape[:1]:
            raise ValueError(
                f"{len(x_t)} data points need labels of shape {tuple(x_t.shape[:1])}, "
                f"got {tuple(labels.shape)}"
            )
        return labels.expand(len(x_t))

    def _resolved(self, precision: Precision) -> Precision:
        own = self.data_mean
        found = (
            resolve_precision(precision, own.device) if own.dtype == torch.float32 else "float32"
        )
        if precision == "bfloat16" != found:
            raise ValueError(
                f"precision: 'bfloat16' is not allowed of a model in {own.dtype}, allowed: float32, "
                "which is the model's own type"
            )
        return found

    def stepwise(
        self,
        process: Process,
        times: Sequence[float],
        guidance: float = 1.0,
        precision: Precision = "float32",
    ) -> Callable[[Tensor, float, Tensor | None], Tensor]:
        """Return `along`'s function for one time of the whole batch, its coefficients as floats.

        It is called with x_t (B, *shape), one of `times`, and labels as `checked` returns them.
        """
        precision = self._resolved(precision)
        t = torch.tensor(times, dtype=torch.float64)
        ratio = process.ratio(t)
        c_noise = _c_noise(ratio).to(self.data_mean).unbind()
        shrink = (1 / process.alpha(t)).tolist()
        scales = [preconditioning(r, self.std, self.preconditioning) for r in ratio.tolist()]
        known = dict(zip(times, zip(shrink, scales, c_noise, strict=True), strict=True))

        def denoise(x_t: Tensor, t: float, labels: Tensor | None) -> Tensor:
            shrink, scales, c_noise = known[t]
            c_noise = c_noise.expand(len(x_t))
            return self._guided(x_t * shrink, scales, c_noise, labels, guidance, precision)

        return denoise

    def checked(self, labels: LabelsLike | None, guidance: float) -> Tensor | None:
        """Return the labels (int64) on this model's device, None for no class at all.

        Their shape stays: of one label alone it is (). Raises ValueError if the model knows no classes,
        or a label or the guidance is out of range.
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
        try:
            found = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            found = None
        if found is None or found.is_complex() or bool((found != found.long()).any()):
            raise ValueError(
                f"labels: {shown(labels)} is not allowed, allowed: class numbers from 0 to "
                f"{self.classes - 1}, or -1 for no class"
            )
        low, high = (int(found.min()), int(found.max())) if found.numel() else (-1, -1)
        if low < -1 or high >= self.classes:
            raise ValueError(
                f"labels must be from 0 to {self.classes - 1}, or -1 for no class, "
                f"got {low} … {high}"
            )
        if guidance == 0.0:
            return None
        return found.to(self.data_mean.device, torch.int64)

    def _guided(
        self,
        y: Tensor,
        scales: tuple[Any, Any, Any],
        c_noise: Tensor,
        labels: Tensor | None,
        guidance: float,
        precision: Precision,
        **told: Tensor,
    ) -> Tensor:
        """Return D for y = x_t / alpha_t; `scales` are c_skip, c_out and c_in, numbers or columns."""
        c_skip, c_out, c_in = scales
        y = y - self.data_mean
        if labels is None or guidance == 1.0:
            f = self._predicted(c_in * y, c_noise, labels, precision, **told)
        else:
            none = torch.full_like(labels, -1)
            both = self._predicted(
                (c_in * y).repeat(2, *(1,) * len(self.shape)),
                c_noise.repeat(2),
                torch.cat([none, labels]),
                precision,
                **{name: one.repeat(2, 1) for name, one in told.items()},
            )
            without, with_class = both.chunk(2)
            f = torch.lerp(without, with_class, guidance)
        denoised: Tensor = self.data_mean + c_skip * y + c_out * f
        return denoised

    def _predicted(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None,
        precision: Precision,
        **told: Tensor,
    ) -> Tensor:
        """Return F in the type of x, if it is F: another shape would be broadcast, and nobody would know."""
        with autocast(precision, x.device):
            f = self.network(x, c_noise, labels, **told)
        if not isinstance(f, Tensor) or f.shape != x.shape:
            what = f"shape {tuple(f.shape)}" if isinstance(f, Tensor) else f"a {type(f).__name__}"
            raise ValueError(
                f"the network returned {what} for data of shape {tuple(x.shape)}, allowed: a tensor "
                "of that shape"
            )
        return f.to(x.dtype)

    def score(self, x_t: Tensor, t: TimesLike, labels: LabelsLike | None = None) -> Tensor:
        """Return the score ∇ log p_t(x_t) = (alpha_t D − x_t) / sigma_t², arguments as `forward`."""
        x_t, t = self._fitting(x_t, t)
        return convert(self(x_t, t, labels), x_t, t, self.process, "denoised", "score")

    def energy(self, x_t: Tensor, t: TimesLike, labels: LabelsLike | None = None) -> Tensor:
        """Return the energy f(x_t, t) = −ln p_t(x_t) up to a constant of t (B,); the score is −∇ f.

        With y = x_t / alpha_t − m, r = sigma_t / alpha_t and the network's scalar ψ:

            f = (1 − c_skip) |y|² / (2 r²) − c_out / (c_in r²) ψ(c_in y, c_noise)

        Arguments as `forward`, of a model made with `energy=True`. Song and Kingma, How to Train Your
        Energy-Based Models, 2021, arXiv:2101.03288.
        """
        if not isinstance(self.network, Energy):
            raise ValueError("this model has a score but no energy; make it with energy=True")
        x_t, t = self._fitting(x_t, t)
        known = self.checked(labels, 1.0)
        ratio = self.process.ratio(t)
        c_skip, c_out, c_in = preconditioning(ratio, self.std, self.preconditioning)
        y = x_t / column(self.process.alpha(t), x_t) - self.data_mean
        psi = self.network.potential(
            column(c_in, y) * y,
            _c_noise(ratio),
            None if known is None else self._of_all(known, x_t),
        )
        squared = y.square().flatten(1).sum(1)
        f: Tensor = ((1 - c_skip) * squared / 2 - c_out / c_in * psi) / ratio**2
        return f

    def config(self) -> dict[str, Any]:
        """Return what is needed, beside the weights, to make this denoiser again.

        A network or a process of one's own that has no configuration is named, and a process known by
        its kernel: whoever makes the denoiser has to give them.
        """
        process = self.process
        named = {"class": type(process).__name__, "kernel": kernel_of(process)}
        return {
            "network": self.network_config,
            "sde": process.config() if has_config(process) else named,
            "shape": list(self.shape),
            "mean": [float(value) for value in self.data_mean.flatten()],
            "std": self.std,
            "levels": self.levels,
            "classes": self.classes,
            "preconditioning": self.preconditioning,
            "energy": isinstance(self.network, Energy),
        }


def kernel_of(process: Process) -> list[list[float]]:
    """Return t, alpha_t and sigma_t at some times, by which one process is told from others."""
    t = torch.tensor([process.t_min, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    return torch.stack([t, process.alpha(t), process.sigma(t)], dim=1).tolist()


def _whole(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one data point as plain integers."""
    try:
        sizes = tuple(int(one) for one in shape if one == int(one) > 0)
        if sizes and len(sizes) == len(shape):
            return sizes
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"denoiser: shape: {shown(shape)} is not allowed, allowed: that of one data point, (C, H, W) or (D,)"
    )


def _numbers(name: str, values: Any) -> list[float]:
    try:
        found = [float(one) for one in values]
    except (TypeError, ValueError):
        found = [float("nan")]
    if not np.isfinite(found).all():
        raise ValueError(f"denoiser: {name}: {shown(values)} is not allowed, allowed: numbers")
    return found


def as_channels_last(denoiser: Denoiser) -> Denoiser:
    """Return `denoiser`, its convolutions in the memory layout that is fastest for images."""
    if len(denoiser.shape) == 3:
        denoiser.to(memory_format=torch.channels_last)
    return denoiser
