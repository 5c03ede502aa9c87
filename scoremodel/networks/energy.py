"""A network whose output is the gradient of a scalar."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoremodel.networks.base import allow_second_derivatives

__all__ = ["Energy"]


class Energy(nn.Module):
    """The vector field F(u, c_noise) = ∇_u ψ(u, c_noise) of the scalar ψ = ⟨u, N(u, c_noise)⟩.

    A denoiser with this inside is an energy-based model (`Denoiser.energy`): its score is the
    gradient of one function, so that it has a density and does no work around a loop. N is any
    network that keeps its input's shape; where it starts with zeros, so does F. A call costs a
    forward and a backward pass, a training step a backward pass through both.

    Scalars from inner products with a network: Salimans and Ho, Should EBMs model the energy or the
    score?, 2021; Du et al. 2023, arXiv:2302.11552.

    Args:
        inner: N.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        allow_second_derivatives(inner)

    def potential(self, u: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ψ with shape (B,)."""
        psi: Tensor = (u * self.inner(u, c_noise, labels)).flatten(1).sum(1)
        return psi

    def forward(self, u: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F = ∇_u ψ, also where gradients are off; differentiable where they are asked for."""
        differentiable = torch.is_grad_enabled() and (
            u.requires_grad or any(weight.requires_grad for weight in self.parameters())
        )
        with torch.inference_mode(False), torch.enable_grad():
            if u.is_inference():
                u, c_noise = u.clone(), c_noise.clone()
                labels = None if labels is None else labels.clone()
            if not u.requires_grad:
                u = u.detach().requires_grad_(True)
            psi = self.potential(u, c_noise, labels)
            (f,) = torch.autograd.grad(psi.sum(), u, create_graph=differentiable)
        return f
