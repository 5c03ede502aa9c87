"""What turns gradients into steps: Adam, or Muon for the matrices inside a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Optimiser", "Steps"]

Optimiser = Literal["adam", "muon"]

_KEPT = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")
"""What torch's Adam and its Muon keep of a weight."""


class Steps:
    """The optimiser of a training's weights, and its state by weight.

    "adam" is Adam (Kingma and Ba 2015, arXiv:1412.6980). "muon" gives every matrix W, and every
    convolution as a matrix of outputs × (inputs · kernel), the step

        W ← W − 0.2 η sqrt(max(m, n)) U Vᵀ,      U Σ Vᵀ = the Nesterov momentum of its gradients,

    with U Vᵀ by five Newton–Schulz iterations (Jordan et al. 2024, "Muon: An optimizer for hidden
    layers in neural networks"), on the scale of Adam's steps, so that one learning rate η is that of
    both (Liu et al. 2025, arXiv:2502.16982). Adam's are the vectors, and the layers that take or give
    the data themselves.

    Args:
        weights: the weights to change, by their numbers.
        kind: one of the names above.
        channels: the data's first dimension.
    """

    def __init__(self, weights: Mapping[int, nn.Parameter], kind: Optimiser, channels: int) -> None:
        self.weights = dict(weights)
        self.matrices = {
            number: nn.Parameter(_as_matrix(weight.detach(), weight))
            for number, weight in weights.items()
            if kind == "muon" and weight.ndim > 1 and min(weight.shape[:2]) > channels
        }
        rest = [weight for number, weight in weights.items() if number not in self.matrices]
        # Groups: of fewer weights than processes some have none.
        self.adam = torch.optim.Adam([{"params": rest}], fused=True)
        self.muon = torch.optim.Muon(
            [{"params": list(self.matrices.values())}],
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        )

    def take(self, learning_rate: float) -> None:
        """Change the weights by their gradients."""
        for number, matrix in self.matrices.items():
            weight = self.weights[number]
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        for one in (self.adam, self.muon):
            for group in one.param_groups:
                group["lr"] = learning_rate
            one.step()

    def state(self, number: int) -> dict[str, Tensor]:
        """Return what torch's optimiser keeps of a weight."""
        matrix = self.matrices.get(number)
        found: dict[str, Tensor] = (
            self.adam.state[self.weights[number]] if matrix is None else self.muon.state[matrix]
        )
        return found

    def kept(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state's tensors, each named after what it is and its weight's number."""
        for number in self.weights:
            for name, value in self.state(number).items():
                yield f"{name}.{number}", value

    def restore(self, name: str, value: Tensor) -> None:
        """Take a tensor back that `kept` gave; of other weights than these nothing is taken."""
        kind, _, number = name.rpartition(".")
        weight = self.matrices.get(int(number), self.weights.get(int(number)))
        if weight is not None and kind in _KEPT:
            made = torch.empty_like(value if kind == "step" else weight)
            self.state(int(number))[kind] = made.copy_(value)


def _as_matrix(value: Tensor, weight: Tensor) -> Tensor:
    """Return a weight, or its gradient, as outputs × the rest: a view of the weight itself.

    Of a convolution whose channels lie side by side the rest is kernel × inputs, of others inputs ×
    kernel: Muon's step is the same but for rounding.
    """
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        value = value.permute(0, 2, 3, 1)
    return value.flatten(1)
