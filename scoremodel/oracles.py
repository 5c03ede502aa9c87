"""Distributions whose score is known at every noise level, for tests and for teaching.

For data N(m, s² I) the noisy marginal is N(alpha_t m, v_t I) with v_t = alpha_t² s² + sigma_t²; for
a mixture it is the mixture of those. An oracle stands wherever a trained denoiser does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scoremodel.parametrisation import convert
from scoremodel.processes.base import Process

__all__ = ["Gaussian", "GaussianMixture"]


class GaussianMixture:
    """The mixture Σ_k w_k N(m_k, s_k² I), with exact log-density, score and denoised mean.

    Args:
        means: component means with shape (K, D).
        stds: K standard deviations.
        weights: K weights; they are normalised to sum to one.
        dtype: floating-point type of all results.

    Raises:
        ValueError: if the counts differ, or a weight or standard deviation is not positive.
    """

    def __init__(
        self,
        means: Sequence[Sequence[float]],
        stds: Sequence[float],
        weights: Sequence[float],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not len(means) == len(stds) == len(weights):
            raise ValueError(
                f"a mixture needs as many means, stds and weights, got "
                f"{len(means)}, {len(stds)} and {len(weights)}"
            )
        if min(stds) <= 0 or min(weights) <= 0:
            raise ValueError(f"stds and weights must be positive, got {stds} and {weights}")
        self.means = torch.tensor(means, dtype=dtype)
        self.stds = torch.tensor(stds, dtype=dtype)
        self.weights = torch.tensor(weights, dtype=dtype) / sum(weights)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `count` points with shape (count, D) and their components with shape (count,)."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(
            (count, self.means.shape[1]), dtype=self.means.dtype, generator=generator
        )
        return self.means[component] + self.stds[component, None] * noise, component

    def _log_joint(self, x_t: Tensor, t: Tensor, process: Process) -> tuple[Tensor, Tensor, Tensor]:
        """Return ln(w_k N(x_t; alpha m_k, v_k)), x_t − alpha m_k, and v_k."""
        alpha = process.alpha(t)[:, None]
        variance = alpha**2 * self.stds**2 + process.sigma(t)[:, None] ** 2
        offset = x_t[:, None, :] - alpha[:, :, None] * self.means
        dimension = x_t.shape[1]
        log_normal = -0.5 * (
            (offset**2).sum(2) / variance + dimension * (2 * torch.pi * variance).log()
        )
        return self.weights.log() + log_normal, offset, variance

    def log_prob(self, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
        """Return ln p_t(x_t) with shape (B,), for x_t with shape (B, D) and t with shape (B,)."""
        return self._log_joint(x_t, t, process)[0].logsumexp(1)

    def denoised(self, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
        """Return E[x_0 | x_t] = Σ_k p(k | x_t) (m_k + alpha s_k² (x_t − alpha m_k) / v_k), for x_t (B, D)."""
        log_joint, offset, variance = self._log_joint(x_t, t, process)
        shrink = process.alpha(t)[:, None] * self.stds**2 / variance
        component_mean = self.means + shrink[:, :, None] * offset
        return (log_joint.softmax(1)[:, :, None] * component_mean).sum(1)

    def score(self, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
        """Return ∇ ln p_t(x_t) with shape (B, D), arguments as `denoised`."""
        return convert(self.denoised(x_t, t, process), x_t, t, process, "denoised", "score")


class Gaussian:
    """N(m, C) with any covariance: exact denoised mean, log-density, and posterior of A x + n.

    Args:
        mean: m with shape (D,).
        covariance: C with shape (D, D), symmetric and positive definite; both decide the type.

    Raises:
        ValueError: if the shapes do not fit, or C is not positive definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"a mean of shape {tuple(mean.shape)} and a covariance of shape "
                f"{tuple(covariance.shape)} do not fit"
            )
        self.mean, self.covariance = mean, covariance
        self.variances, self.axes = torch.linalg.eigh(covariance)
        if not bool((self.variances > 0).all()):
            raise ValueError(
                f"the covariance's smallest eigenvalue is {float(self.variances[0]):g}, "
                "allowed: positive"
            )

    def denoised(self, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
        """Return E[x_0 | x_t] = m + alpha C (alpha² C + sigma² I)⁻¹ (x_t − alpha m), for x_t (B, D)."""
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        denoised: Tensor = (
            self.mean + (gain * ((x_t - alpha * self.mean) @ self.axes)) @ self.axes.T
        )
        return denoised

    def log_prob(self, x: Tensor) -> Tensor:
        """Return ln N(x; m, C) with shape (B,), for x with shape (B, D)."""
        scaled = (x - self.mean) @ self.axes / self.variances.sqrt()
        log_prob: Tensor = -0.5 * (scaled.square() + (2 * torch.pi * self.variances).log()).sum(1)
        return log_prob

    def posterior(self, operator: Tensor, y: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
        """Return means (B, D) and covariance (D, D) of x given y = A x + n (B, M), n ~ N(0, noise_std² I).

        The mean is the best linear estimate for any distribution with these two moments. Without noise,
        noise_std = 0, A may see some directions twice, or next to nothing of them.
        """
        across = self.covariance @ operator.T
        known = operator @ across
        if noise_std == 0:
            gain = across @ torch.linalg.pinv((known + known.T) / 2, hermitian=True)
        else:
            noise = noise_std**2 * torch.eye(len(operator)).to(operator)
            gain = torch.linalg.solve(known + noise, across.T).T
        mean = self.mean + (y - self.mean @ operator.T) @ gain.T
        return mean, self.covariance - gain @ across.T
