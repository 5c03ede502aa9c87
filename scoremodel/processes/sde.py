"""Linear SDEs, given by their kernel or by their coefficients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from scoremodel.bounds import Bounds
from scoremodel.processes.antiderivative import Antiderivative
from scoremodel.processes.base import Process, check_shape, check_times, column

__all__ = ["SDE", "FirstTime", "as_sde"]

FirstTime = Annotated[float, Bounds(ge=1e-9, lt=1)]


@dataclass(frozen=True)
class SDE(Process):
    """A linear SDE dx = f(t) x dt + g(t) dw.

    A subclass gives either the kernel (`alpha`, `sigma`), from which f and g follow by
    differentiation, or drift and diffusion (`f`, `g`), from which the kernel follows by quadrature,
    once and in float64 (`Antiderivative`):

        alpha_t = exp(∫_0^t f ds),        sigma_t² = ∫_0^t g(s)² (alpha_t / alpha_s)² ds.

    The noise ratio is inverted unless `t_of_ratio` is given in closed form: of a table by Newton's
    method within the panel where it lies, of a kernel by bisection. A subclass
    that gives neither pair is refused with a TypeError; times outside [0, 1] get a ValueError from
    alpha, sigma, f and g, whoever wrote them.

    Args:
        t_min: the first time with a score, at which training begins and sampling ends.
    """

    t_min: FirstTime = field(default=1e-3, kw_only=True)

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
        """Return alpha_t = exp(∫_0^t f ds), by quadrature."""
        return self._log_alpha(t).exp().to(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t = sqrt(∫_0^t g(s)² (alpha_t / alpha_s)² ds), by quadrature."""
        return (self._log_alpha(t).exp() * self._squared_ratio(t).sqrt()).to(t)

    @cached_property
    def _log_alpha(self) -> Antiderivative:
        return Antiderivative(self.f)

    @cached_property
    def _squared_ratio(self) -> Antiderivative:
        """(sigma_t / alpha_t)², whose rate is (g / alpha)²."""
        return Antiderivative(self._rate)

    def f(self, t: Tensor) -> Tensor:
        """Return the drift coefficient, d ln(alpha_t) / dt."""
        return _derivative(lambda s: self.alpha(s).log(), t)

    def g(self, t: Tensor) -> Tensor:
        """Return the diffusion coefficient, sqrt(d sigma_t²/dt − 2 f(t) sigma_t²)."""
        variance_rate = _derivative(lambda s: self.sigma(s) ** 2, t)
        return (variance_rate - 2 * self.f(t) * self.sigma(t) ** 2).clamp(min=0).sqrt()

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """Return the time at which sigma_t / alpha_t equals `ratio`, or is nearest to it."""
        if type(self).sigma is SDE.sigma and type(self).alpha is SDE.alpha:
            return self._squared_ratio.inverse(ratio.double() ** 2, self._rate).to(ratio)
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.ratio(middle) > ratio
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def _rate(self, t: Tensor) -> Tensor:
        return (self.g(t) / self.alpha(t)) ** 2

    def time_of_quantile(self, u: Tensor) -> Tensor:
        """Return t_min + (1 − t_min) u."""
        return self.t_min + (1 - self.t_min) * u

    def reverse_drift(self, x_t: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Return f x − g² s, the drift of the reverse-time SDE dx = [f x − g² s] dt + g dw̄.

        For states and scores with shape (B, *), and times with shape (B,) (Anderson 1982; Song et al.
        2021, eq. 6).
        """
        check_shape(score, x_t, "scores")
        return column(self.f(t), x_t) * x_t - column(self.g(t), x_t) ** 2 * score

    def probability_flow(self, x_t: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Return f x − ½ g² s = dx/dt, the ODE with the same marginals (Song et al. 2021, eq. 13).

        Arguments as for `reverse_drift`.
        """
        return self.reverse_drift(x_t, t, score / 2)


def as_sde(process: Process, who: str) -> SDE:
    """Return `process` if it has drift and diffusion, and else refuse it with a line that says who asks."""
    if not isinstance(process, SDE):
        raise ValueError(
            f"{who} needs a process with drift and diffusion, {process.kind} has only levels; "
            "allowed for it: ancestral, reverse_diffusion, ddim, annealed_langevin and others that "
            "use the kernel alone"
        )
    return process


def _checked(method: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return `method`, refusing times outside [0, 1]."""

    @functools.wraps(method)
    def checked(self: Any, t: Tensor) -> Tensor:
        check_times(t)
        return method(self, t)

    return checked


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Return d function / dt at each t, for a function that acts on each time by itself."""
    with torch.enable_grad():
        s = t.detach().clone().requires_grad_(True)
        # 0 · s gives a constant function, such as VE's alpha, the derivative 0 instead of none.
        (slope,) = torch.autograd.grad((function(s) + 0 * s).sum(), s)
    return slope
