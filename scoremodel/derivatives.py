"""Derivatives of a model with respect to its input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["basis", "pull_back"]


def basis(x: Tensor) -> Tensor:
    """Return the unit vectors with shape (D, B, D) for vectors x (B, D), which pull the Jacobian back."""
    if x.ndim != 2:
        raise ValueError(f"an exact trace is for vectors of shape (B, D), got {tuple(x.shape)}")
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None].expand(-1, len(x), -1)


def pull_back(
    function: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return function(x), and (∂function/∂x)ᵀ v for each direction v of (P, B, *): a backward pass for each.

    Each row of function(x) must be a function of its own row of x (B, *). Both results are
    differentiable where gradients are on.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = function(x)
        last = len(directions) - 1
        pulled = [
            torch.autograd.grad(
                value, x, v, retain_graph=differentiable or i < last, create_graph=differentiable
            )[0]
            for i, v in enumerate(directions)
        ]
    return value if differentiable else value.detach(), torch.stack(pulled)
