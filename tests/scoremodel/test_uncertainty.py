"""The learned logarithm of each noise level's loss, and a training with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks
from scoremodel.training import loop
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.uncertainty import Uncertainty
from tests.scoremodel.test_checkpoint import stop_after
from tests.scoremodel.test_ranks import together
from tests.scoremodel.test_training import digest

CONFIG = TrainingConfig(
    steps=12,
    batch_size=32,
    parts=4,
    log_every=4,
    learning_rate=0.02,
    warmup_steps=2,
    uncertainty=True,
    ema_stds=(0.1,),
)


def test_it_finds_the_mean_loss_of_each_level_and_makes_all_levels_losses_one() -> None:
    """L = c(r) χ²_8 / 8 with c = r^1.5 / (1 + r): the loss L / e^u + u has its least at u = ln c."""
    u = Uncertainty(0)
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(u.parameters(), lr=0.05)

    def known(r: torch.Tensor) -> torch.Tensor:
        return r**1.5 / (1 + r)

    for step in range(1000):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 1000)
        r = (1.5 * torch.randn(256, generator=draw) - 0.5).exp()
        losses = known(r) * torch.randn(256, 8, generator=draw).square().mean(1)
        optimiser.zero_grad()
        u.balanced(losses, r).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    r = torch.logspace(-1.2, 0.8, 20)
    assert float((u(r).detach() - known(r).log()).abs().max()) < 0.1


def test_at_first_it_changes_nothing_and_then_divides_the_gradient() -> None:
    """The first two steps' losses, and d(L / e^u + u)/dL = e^−u, 1 − L / e^u of u."""
    u, r = Uncertainty(3), torch.tensor([0.1, 2.0])
    losses = torch.tensor([0.3, 5.0], requires_grad=True)
    torch.testing.assert_close(u.balanced(losses, r), losses, rtol=0, atol=0)
    torch.nn.init.constant_(u.weight, 0.2)
    (slope,) = torch.autograd.grad(u.balanced(losses, r).sum(), losses)
    torch.testing.assert_close(slope, (-u(r)).exp())
    assert float((u(r)[0] - u(r)[1]).detach().abs()) > 1e-3


def run(config: TrainingConfig = CONFIG, **options: Any) -> tuple[str, Any]:
    torch.manual_seed(0)
    mlp = {"kind": "mlp", "width": 8, "depth": 1, "dropout": 0.1}
    denoiser = Denoiser(mlp, VP(), (2,), [0.0, 0.0], 0.6)
    data = 0.6 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    found = train(denoiser, data, config, 0, **options)
    assert {len(one.state_dict()) for one in found.averaged.values()} == {
        len(denoiser.state_dict())
    }
    return "".join(map(digest, [denoiser, *found.averaged.values()])), found.curves


def test_stops_processes_and_shares_change_no_bit_of_a_training_with_it(tmp_path: Path) -> None:
    whole, curves = run()
    plain, others = run(replace(CONFIG, uncertainty=False))
    assert plain != whole
    assert curves[0]["loss"] == pytest.approx(others[0]["loss"], rel=0.2)  # that before it is shown
    for steps in (3, 8):
        with stop_after(steps, tmp_path / str(steps)) as checkpoints, pytest.raises(Stopped):
            run(checkpoints=checkpoints)
        with Checkpoints(tmp_path / str(steps)) as checkpoints:
            assert run(checkpoints=checkpoints)[0] == whole

    def act(ranks: Ranks, _: Path) -> list[str]:
        return [run(ranks=ranks)[0], run(ranks=ranks, sharded=True)[0]]

    assert together(2, tmp_path, act) == [[whole] * 2] * 2


def test_a_training_s_levels_are_told_apart() -> None:
    """After it e^u is the loss of each level, to the third that a short training gets near."""
    data = 0.6 * torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    mlp = {"kind": "mlp", "width": 8, "depth": 1}
    denoiser = Denoiser(mlp, VP(), (2,), [0.0, 0.0], 0.6, preconditioning="noise")
    config = TrainingConfig(
        steps=500, batch_size=64, learning_rate=0.02, weighting="sigma2", uncertainty=True
    )
    made = loop._Run(denoiser, data, None, config, 0, None, Ranks(), False)
    losses, times = [], []
    for step in range(500):
        made.advance()
        row = step % config.log_every
        losses.append(made.losses[row].clone())
        times.append(made.times[row].clone())
    seen, t = torch.cat(losses[-250:]), torch.cat(times[-250:])
    ratio = VP().ratio(t)
    assert made.uncertainty is not None
    for low, high in ((0.05, 0.1), (0.2, 0.4), (0.8, 1.6)):
        inside = (ratio > low) & (ratio < high)
        mean, found = (
            float(seen[inside].mean()),
            float(made.uncertainty(ratio[inside]).detach().exp().mean()),
        )
        assert found == pytest.approx(mean, rel=0.33)
    assert float(seen[ratio > 0.8].mean()) < 0.7 * float(seen[ratio < 0.1].mean())


def test_a_loss_that_may_be_negative_is_refused() -> None:
    with pytest.raises(
        ValueError, match="uncertainty: True is not allowed, allowed: False with obj"
    ):
        replace(CONFIG, objective="implicit")
