"""Forward SDEs: how data become noise.

Every process here is a linear Itô SDE on t in [0, 1],

    dx = f(t) x dt + g(t) dw,

whose transition kernel from the data is Gaussian,

    p(x_t | x_0) = N(alpha_t x_0, sigma_t² I).

The pairs (f, g) and (alpha, sigma) say the same thing:

    f = d ln(alpha)/dt,        g² = d(sigma²)/dt − 2 f sigma².

The reverse-time SDE and the probability-flow ODE (samplers) need f, g and the score only:

    dx = [f x − g² ∇ log p_t] dt + g dw̄,        dx = [f x − ½ g² ∇ log p_t] dt.

The processes, with B_t = ∫_0^t β ds and β(t) = β_0 + t (β_1 − β_0):

    class     alpha_t               sigma_t                             prior
    VE        1                     sigma_min (sigma_max/sigma_min)^t   N(data mean, sigma_max² I)
    VP        exp(−B_t / 2)         sqrt(1 − exp(−B_t))                 N(0, I)
    SubVP     exp(−B_t / 2)         1 − exp(−B_t)                       N(0, I)
    CosineVP  cos(θ_t) / cos(θ_0)   sqrt(1 − alpha_t²)                  N(0, I)

A process of your own is a subclass of `SDE` with either pair; everything else follows.

Examples:
    >>> t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    >>> VP().alpha(t)
    tensor([0.9999, 0.2812, 0.0066], dtype=torch.float64)
    >>> VP().perturb(torch.zeros(3, 2), t.float(), torch.ones(3, 2))[:, 0]
    tensor([0.0105, 0.9597, 1.0000])

Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through
Stochastic Differential Equations, 2021, arXiv:2011.13456.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["SDE", "SDES", "VE", "VP", "CosineVP", "Process", "SubVP", "check_times", "column"]


def check_times(t: Tensor) -> None:
    """Raise ValueError if a time lies outside [0, 1], up to rounding.

    Times on another device than the CPU are not looked at: that would wait for the device.

    Args:
        t: times with any shape.

    Raises:
        ValueError: with the smallest and the largest time given.
    """
    if t.device.type != "cpu" or torch.compiler.is_compiling() or not t.numel():
        return
    low, high = torch.aminmax(t.detach())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(f"times must be in [0, 1], got {float(low):g} … {float(high):g}")


def column(t: Tensor, x: Tensor) -> Tensor:
    """Return t, one number for each data point, in a shape that multiplies x.

    Args:
        t: numbers with shape (B,).
        x: data with shape (B, *).

    Returns:
        t with shape (B, 1, …, 1), as many dimensions as x.

    Raises:
        ValueError: if t is not of shape (B,).
    """
    if t.shape != x.shape[:1]:
        raise ValueError(
            f"data of shape {tuple(x.shape)} need times of shape {tuple(x.shape[:1])}, "
            f"got {tuple(t.shape)}"
        )
    return t.view(-1, *(1,) * (x.ndim - 1))


def _same_shape(x: Tensor, other: Tensor, name: str) -> None:
    if x.shape != other.shape:
        raise ValueError(
            f"data of shape {tuple(x.shape)} need {name} of that shape, got {tuple(other.shape)}"
        )


class Process(ABC):
    """A forward process with kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t² I), t in [0, 1].

    All that training and most samplers need. An `SDE` has every t in [0, 1]; a chain
    (`scoremodel.processes.chain`) has t = i / N for its levels i = 1 … N only. Every method takes times of
    any shape and returns that shape.
    """

    kind: ClassVar[str]
    prior_keeps_mean: ClassVar[bool]
    """Whether the prior is centred on the data's mean (alpha_1 = 1) or on zero (alpha_1 ≈ 0)."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The first time with a score: noise-free data have none."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t, the factor by which the data have shrunk."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t, the standard deviation of the noise."""

    @abstractmethod
    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time t at which sigma_t / alpha_t equals `ratio`, or is nearest to it."""

    @abstractmethod
    def times(self, u: Tensor) -> Tensor:
        """Return the times of this process that u in [0, 1) stands for, all equally likely."""

    def grid(self, points: int) -> Tensor:
        """Return times that fall from 1 to t_min, equally spaced.

        Args:
            points: how many.

        Returns:
            Falling times (float64) with shape (points,).

        Raises:
            ValueError: if the process has fewer times than that.
        """
        return 1 + torch.linspace(0, 1, points, dtype=torch.float64) * (self.t_min - 1)

    def prior_std(self) -> float:
        """Return the standard deviation of the prior, from which sampling starts."""
        return float(self.sigma(torch.ones((), dtype=torch.float64)))

    def ratio(self, t: Tensor) -> Tensor:
        """Return sigma_t / alpha_t, the noise level of x_t / alpha_t (EDM's sigma)."""
        return self.sigma(t) / self.alpha(t)

    def perturb(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x_0 + sigma_t noise.

        Args:
            x_0: data with shape (B, *).
            t: times with shape (B,).
            noise: standard normal noise with shape (B, *).

        Returns:
            The noisy data with shape (B, *).

        Raises:
            ValueError: if the shapes do not fit, or a time is outside [0, 1].
        """
        _same_shape(x_0, noise, "noise")
        return column(self.alpha(t), x_0) * x_0 + column(self.sigma(t), x_0) * noise

    def config(self) -> dict[str, Any]:
        """Return the parameters from which `process_from_config` makes this process again."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


def _checked(method: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return `method`, refusing times outside [0, 1]."""

    @functools.wraps(method)
    def checked(self: Any, t: Tensor) -> Tensor:
        check_times(t)
        return method(self, t)

    return checked


class SDE(Process):
    """A linear SDE dx = f(t) x dt + g(t) dw.

    A subclass gives either the kernel (`alpha`, `sigma`), from which f and g follow by
    differentiation, or drift and diffusion (`f`, `g`), from which the kernel follows by quadrature:

        alpha_t = exp(∫_0^t f ds),        sigma_t² = ∫_0^t g(s)² (alpha_t / alpha_s)² ds.

    The noise ratio is inverted by bisection unless `t_of_ratio` is given in closed form. A subclass
    that gives neither pair is refused with a TypeError; times outside [0, 1] get a ValueError from
    alpha, sigma, f and g, whoever wrote them.
    """

    t_min: float = 1e-3
    prior_keeps_mean: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        kernel = cls.alpha is not SDE.alpha and cls.sigma is not SDE.sigma
        coefficients = cls.f is not SDE.f and cls.g is not SDE.g
        if not kernel and not coefficients:
            raise TypeError(f"{cls.__name__} must define alpha and sigma, or f and g")
        for name in ("alpha", "sigma", "f", "g"):
            if name in cls.__dict__:
                setattr(cls, name, _checked(cls.__dict__[name]))

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t = exp(∫_0^t f ds), by Gauss–Legendre quadrature."""
        return _integral(self.f, t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = sqrt(∫_0^t g(s)² (alpha_t / alpha_s)² ds), by quadrature."""
        scaled = _integral(lambda s: (self.g(s) / self.alpha(s)) ** 2, t)
        return self.alpha(t) * scaled.sqrt()

    def f(self, t: Tensor) -> Tensor:
        """Return the drift coefficient, d ln(alpha_t) / dt."""
        return _derivative(lambda s: self.alpha(s).log(), t)

    def g(self, t: Tensor) -> Tensor:
        """Return the diffusion coefficient, sqrt(d sigma_t²/dt − 2 f(t) sigma_t²)."""
        variance_rate = _derivative(lambda s: self.sigma(s) ** 2, t)
        return (variance_rate - 2 * self.f(t) * self.sigma(t) ** 2).clamp(min=0).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time at which sigma_t / alpha_t equals `ratio`, by bisection on [0, 1]."""
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.ratio(middle) > ratio
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def times(self, u: Tensor) -> Tensor:
        """Return t_min + (1 − t_min) u."""
        return self.t_min + (1 - self.t_min) * u

    def reverse_drift(self, x_t: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Return f x − g² s, the drift of the reverse-time SDE dx = [f x − g² s] dt + g dw̄.

        Args:
            x_t: state with shape (B, *).
            t: times with shape (B,).
            score: ∇ log p_t(x_t) with shape (B, *).

        Returns:
            The drift with shape (B, *) (Anderson 1982; Song et al. 2021, eq. 6).

        Raises:
            ValueError: if the shapes do not fit, or a time is outside [0, 1].
        """
        _same_shape(x_t, score, "scores")
        return column(self.f(t), x_t) * x_t - column(self.g(t), x_t) ** 2 * score

    def probability_flow(self, x_t: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Return f x − ½ g² s = dx/dt, the ODE with the same marginals (Song et al. 2021, eq. 13).

        Args:
            x_t: state with shape (B, *).
            t: times with shape (B,).
            score: ∇ log p_t(x_t) with shape (B, *).

        Returns:
            The velocity with shape (B, *).

        Raises:
            ValueError: if the shapes do not fit, or a time is outside [0, 1].
        """
        return self.reverse_drift(x_t, t, score / 2)


@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: alpha_t = 1, sigma_t = sigma_min (sigma_max / sigma_min)^t.

    f = 0 and g(t) = sigma_t sqrt(2 ln(sigma_max / sigma_min)); the limit of NCSN's ladder of noise
    levels (Song and Ermon 2019, arXiv:1907.05600). With this convention sigma_0 = sigma_min, so the
    SDE started from the data at t = 0 has variance sigma_t² − sigma_min².

    Args:
        sigma_min: smallest noise level, in units of the data.
        sigma_max: largest noise level; about the largest distance between two data points.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    kind: ClassVar[str] = "ve"
    t_min: ClassVar[float] = 1e-5  # type: ignore[misc]
    prior_keeps_mean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE needs 0 < sigma_min < sigma_max, got sigma_min={self.sigma_min}, "
                f"sigma_max={self.sigma_max}"
            )

    @property
    def _log_range(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * (self._log_range * t).exp()

    def f(self, t: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        """Return g(t) = sigma_t sqrt(2 ln(sigma_max / sigma_min))."""
        return self.sigma(t) * math.sqrt(2 * self._log_range)

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return t = ln(ratio / sigma_min) / ln(sigma_max / sigma_min)."""
        return (ratio / self.sigma_min).log() / self._log_range


@dataclass(frozen=True)
class VP(SDE):
    """Variance preserving: alpha_t = exp(−½ ∫β), sigma_t = sqrt(1 − alpha_t²), ∫β = ½ t²(β1−β0) + tβ0.

    f = −½ β(t) and g = sqrt(β(t)) with β(t) = β0 + t (β1 − β0); the limit of DDPM's chain
    (Ho, Jain, Abbeel 2020, arXiv:2006.11239).

    Args:
        beta_min: β0, the rate of noising at t = 0.
        beta_max: β1, the rate of noising at t = 1.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    kind: ClassVar[str] = "vp"

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(
                f"{self.kind} needs 0 < beta_min < beta_max, got beta_min={self.beta_min}, "
                f"beta_max={self.beta_max}"
            )

    def beta(self, t: Tensor) -> Tensor:
        """Return β(t) = β0 + t (β1 − β0)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral_of_beta(self, t: Tensor) -> Tensor:
        """Return ∫_0^t β(s) ds = ½ t² (β1 − β0) + t β0."""
        return 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min

    def _t_of_integral(self, integral: Tensor) -> Tensor:
        # The positive root of ½(β1−β0) t² + β0 t − integral, in the form that does not cancel.
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2 * slope * integral).sqrt()
        return 2 * integral / (root + self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t = exp(−½ ∫_0^t β ds)."""
        return (-0.5 * self.integral_of_beta(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = sqrt(1 − alpha_t²)."""
        # expm1 keeps the digits that 1 − alpha² loses near t = 0.
        return (-torch.expm1(-self.integral_of_beta(t))).sqrt()

    def f(self, t: Tensor) -> Tensor:
        """Return −½ β(t)."""
        return -0.5 * self.beta(t)

    def g(self, t: Tensor) -> Tensor:
        """Return sqrt(β(t))."""
        return self.beta(t).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with ∫_0^t β ds = ln(1 + ratio²), the root of a quadratic."""
        return self._t_of_integral(torch.log1p(ratio**2))

    def prior_std(self) -> float:
        """Return 1, to which sigma_1 is close."""
        return 1.0


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: alpha_t as VP, sigma_t = 1 − alpha_t², with less noise than VP at every t < 1.

    f = −½ β(t) and g = sqrt(β(t) (1 − exp(−2 ∫β))) (Song et al. 2021, arXiv:2011.13456, eq. 29).

    Args:
        beta_min: β0, the rate of noising at t = 0.
        beta_max: β1, the rate of noising at t = 1.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.
    """

    kind: ClassVar[str] = "subvp"

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = 1 − alpha_t²."""
        return -torch.expm1(-self.integral_of_beta(t))

    def g(self, t: Tensor) -> Tensor:
        """Return sqrt(β(t) (1 − exp(−2 ∫_0^t β ds)))."""
        return (-self.beta(t) * torch.expm1(-2 * self.integral_of_beta(t))).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with ∫_0^t β ds = 2 asinh(ratio / 2)."""
        # ratio = (1 − a²)/a, so a = (sqrt(ratio² + 4) − ratio)/2 and asinh(ratio/2) = −ln a.
        return self._t_of_integral(2 * torch.asinh(ratio / 2))


@dataclass(frozen=True)
class CosineVP(SDE):
    """VP with the cosine schedule: alpha_t = cos(θ_t) / cos(θ_0), θ_t = ½π (t_end t + s) / (1 + s).

    sigma_t = sqrt(1 − alpha_t²). At t_end = 1 alpha would reach 0 and the noise ratio infinity.

    Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17.

    Args:
        offset: s, which keeps the first noise from being too small.
        t_end: where on the published schedule, in (0, 1), our t = 1 lies.

    Raises:
        ValueError: if offset <= 0 or t_end is not in (0, 1).
    """

    offset: float = 0.008
    t_end: float = 0.995

    kind: ClassVar[str] = "vp_cosine"

    def __post_init__(self) -> None:
        if not (self.offset > 0 and 0 < self.t_end < 1):
            raise ValueError(
                f"vp_cosine needs offset > 0 and 0 < t_end < 1, got offset={self.offset}, "
                f"t_end={self.t_end}"
            )

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (self.t_end * t + self.offset) / (1 + self.offset)

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t = cos(θ_t) / cos(θ_0)."""
        return self._angle(t).cos() / self._angle(torch.zeros_like(t)).cos()

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = sqrt(1 − alpha_t²)."""
        # 1 − alpha² = sin(θ_t − θ_0) sin(θ_t + θ_0) / cos²(θ_0), which does not cancel near t = 0.
        here, start = self._angle(t), self._angle(torch.zeros_like(t))
        return ((here - start).sin() * (here + start).sin()).sqrt() / start.cos()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the t with cos(θ_t) = cos(θ_0) / sqrt(1 + ratio²)."""
        start = self._angle(torch.zeros_like(ratio))
        angle = (start.cos() / (1 + ratio**2).sqrt()).acos()
        return (angle * 2 / math.pi * (1 + self.offset) - self.offset) / self.t_end

    def prior_std(self) -> float:
        """Return 1, to which sigma_1 is close."""
        return 1.0


SDES: dict[str, type[SDE]] = {cls.kind: cls for cls in (VE, VP, SubVP, CosineVP)}


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Return d function / dt at each t, for a function that acts on each time by itself."""
    with torch.enable_grad():
        s = t.detach().clone().requires_grad_(True)
        # 0 · s gives a constant function, such as VE's alpha, the derivative 0 instead of none.
        (slope,) = torch.autograd.grad((function(s) + 0 * s).sum(), s)
    return slope


_NODES, _WEIGHTS = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(48))


def _integral(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Return ∫_0^t function ds at each t, by 48-point Gauss–Legendre quadrature."""
    half = t[..., None] / 2
    return (half * _WEIGHTS.to(t) * function(half * (1 + _NODES.to(t)))).sum(-1)
