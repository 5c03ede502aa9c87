"""Distributions whose score is known at every noise level, for tests and for teaching.

For data N(m, s² I) the noisy marginal is N(alpha_t m, v_t I) with v_t = alpha_t² s² + sigma_t²; for
a mixture it is the mixture of those. An oracle stands wherever a trained denoiser does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scoremodel.denoiser import convert
from scoremodel.sde import Process

__all__ = ["GaussianMixture"]


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
        """Return E[x_0 | x_t] = Σ_k p(k | x_t) (m_k + alpha s_k² (x_t − alpha m_k) / v_k).

        Args:
            x_t: noisy points with shape (B, D).
            t: times with shape (B,).
            process: the process that made x_t.

        Returns:
            The denoised mean with shape (B, D).
        """
        log_joint, offset, variance = self._log_joint(x_t, t, process)
        shrink = process.alpha(t)[:, None] * self.stds**2 / variance
        component_mean = self.means + shrink[:, :, None] * offset
        return (log_joint.softmax(1)[:, :, None] * component_mean).sum(1)

    def score(self, x_t: Tensor, t: Tensor, process: Process) -> Tensor:
        """Return ∇ ln p_t(x_t) with shape (B, D), arguments as `denoised`."""
        return convert(self.denoised(x_t, t, process), x_t, t, process, "denoised", "score")
