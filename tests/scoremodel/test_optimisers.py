"""Muon's step beside one by singular values, and which weights take it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scoremodel.training.optimisers import Steps


def _network() -> dict[int, nn.Parameter]:
    torch.manual_seed(0)
    layers = nn.ModuleList(
        [
            nn.Conv2d(3, 16, 3),
            nn.Conv2d(16, 24, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            nn.Conv2d(24, 16, 3),
            nn.Linear(16, 40),
            nn.Conv2d(16, 3, 3),
        ]
    )
    return dict(enumerate(layers.parameters()))


def test_muon_turns_the_matrices_inside_by_an_orthogonal_step_and_adam_the_rest() -> None:
    """The singular values of the step are 0.2 η sqrt(max(m, n)) × .68 … 1.13, where five iterations lead.

    Its singular vectors are the gradient's: one step's momentum is the gradient times a number.
    """
    weights = _network()
    before = {number: weight.detach().clone() for number, weight in weights.items()}
    for weight in weights.values():
        weight.grad = torch.randn_like(weight)
    Steps(weights, "muon", channels=3).take(0.01)
    for number, weight in weights.items():
        step = (before[number] - weight.detach()).flatten(1) if weight.ndim > 1 else None
        if number in (2, 4, 6):
            assert step is not None
            assert weight.grad is not None
            u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
            scaled = u.T @ step @ v.T / (0.2 * 0.01 * math.sqrt(max(step.shape)))
            along = scaled.diagonal()
            assert 0.65 < float(along.min()) <= float(along.max()) < 1.2
            rest = scaled - along.diag()
            assert float(rest.abs().max()) < 0.03  # bfloat16's rounding
        else:  # Adam's first step is the sign of the gradient
            assert weight.grad is not None
            moved = before[number] - weight.detach()
            torch.testing.assert_close(moved, 0.01 * weight.grad.sign(), rtol=1e-3, atol=1e-6)


def test_a_weight_s_memory_format_changes_muon_s_step_by_rounding_only() -> None:
    torch.manual_seed(1)
    value, gradient = torch.randn(2, 24, 16, 3, 3).unbind()
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(value.clone(memory_format=layout))
        weight.grad = gradient.clone(memory_format=layout)
        Steps({0: weight}, "muon", channels=3).take(1.0)
        moved.append(weight.detach() - value)
    assert float((moved[0] - moved[1]).norm() / moved[0].norm()) < 0.01


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_the_state_comes_back_by_name(kind: str) -> None:
    def run(steps: Steps, weights: dict[int, nn.Parameter], first: int, last: int) -> None:
        for step in range(first, last):
            torch.manual_seed(step)
            for weight in weights.values():
                weight.grad = torch.randn_like(weight)
            steps.take(0.01)

    whole, stopped, again = _network(), _network(), _network()
    run(Steps(whole, kind, 3), whole, 0, 4)  # type: ignore[arg-type]
    before = Steps(stopped, kind, 3)  # type: ignore[arg-type]
    run(before, stopped, 0, 2)
    after = Steps(again, kind, 3)  # type: ignore[arg-type]
    for name, value in before.kept():
        after.restore(name, value)
    for number, weight in stopped.items():
        again[number].data.copy_(weight)
    run(after, again, 2, 4)
    for number, weight in whole.items():
        assert torch.equal(weight, again[number])
