"""Power-function averages: their profile, and others of them by least squares from snapshots."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.io.denoisers import load, save
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks
from scoremodel.training.averages import Snapshots, exponent, posthoc, power_decay
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import Trained, train
from tests.scoremodel.test_checkpoint import stop_after
from tests.scoremodel.test_ranks import together
from tests.scoremodel.test_training import Witness, digest


def profile(std: float, step: int) -> np.ndarray[Any, Any]:
    """Return how much each step's weights count in the average, by its recursion."""
    found = np.zeros(step)
    for t in range(1, step + 1):
        kept = power_decay(std, t)
        found *= kept
        found[t - 1] = 1 - kept
    return found


def test_the_exponents_are_the_published_ones() -> None:
    """Karras et al. 2024, arXiv:2312.02696, section 3.1: γ = 16.97 for 0.05, 6.94 for 0.10."""
    assert exponent(0.05) == pytest.approx(16.97, abs=5e-3)
    assert exponent(0.10) == pytest.approx(6.94, abs=5e-3)
    assert 12**-0.5 > 0.28
    assert exponent(0.28) == pytest.approx(0.1693, abs=1e-4)  # nearly the mean of all


@pytest.mark.parametrize("std", [0.02, 0.1, 0.25])
def test_an_average_s_width_is_what_it_is_named_by(std: float) -> None:
    weights = profile(std, 5000)
    tau = np.arange(1, 5001) / 5000
    mean = weights @ tau
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert np.sqrt(weights @ (tau - mean) ** 2) == pytest.approx(std, rel=2e-3)


@pytest.mark.parametrize("std", [0.05, 0.07, 0.1, 0.13, 0.2])
def test_another_width_is_had_from_snapshots_of_two(std: float) -> None:
    """Of a random walk, to a hundredth of its spread; of its own widths at a snapshot, exactly."""
    steps, every = 2048, 64
    walk = np.cumsum(np.random.default_rng(0).normal(size=(steps, 50)), axis=0)
    snapshots = [(float(t), own) for t in range(every, steps + 1, every) for own in (0.05, 0.1)]
    states = {own: np.zeros(50) for own in (0.05, 0.1)}
    stored = []
    for t in range(1, steps + 1):
        for own, state in states.items():
            state += (1 - power_decay(own, t)) * (walk[t - 1] - state)
            if t % every == 0:
                stored.append(state.copy())
    for end in (steps, steps - 10 * every):
        coefficients = np.array(posthoc(snapshots, std, end))
        found, wanted = coefficients @ np.array(stored), profile(std, end) @ walk[:end]
        error = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(walk[:end].var(axis=0)))
        assert error < (1e-9 if std in (0.05, 0.1) else 0.01), error
        assert not coefficients[[t > end for t, _ in snapshots]].any()
    with pytest.raises(ValueError, match="step: 5 is not allowed, allowed: that of a snapshot"):
        posthoc(snapshots, std, 5)
    with pytest.raises(
        ValueError, match=r"posthoc: std: 0.4 is not allowed, allowed: a number from 0"
    ):
        posthoc(snapshots, 0.4)


def trained(
    folder: Path | None = None, stds: tuple[float, ...] = (0.05, 0.1), **options: Any
) -> tuple[Trained, Witness]:
    torch.manual_seed(0)
    denoiser = Denoiser({"kind": "mlp", "width": 4, "depth": 1}, VP(), (2,), [0.1, -0.1], 1.0)
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    config = TrainingConfig(
        steps=96,
        batch_size=16,
        parts=2,
        learning_rate=0.02,
        ema_half_lives=(),
        ema_stds=stds,
        log_every=10,
    )
    witness = Witness(denoiser)
    kept = None if folder is None else Snapshots(folder, every=4)
    options.setdefault("observer", witness)
    return train(denoiser, data, config, 0, snapshots=kept, **options), witness


def flat(denoiser: Denoiser) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in denoiser.parameters()])


def test_a_training_keeps_the_averages_and_another_one_is_had_afterwards(tmp_path: Path) -> None:
    found, witness = trained(tmp_path / "snapshots", (0.05, 0.1))
    for std, averaged in found.averaged.items():
        direct = torch.from_numpy(profile(std, 96)).float() @ torch.stack(witness.weights)
        torch.testing.assert_close(flat(averaged), direct, rtol=1e-5, atol=1e-6)
    snapshots = Snapshots(tmp_path / "snapshots", every=4)
    for std, end in ((0.07, None), (0.05, 96), (0.12, 72)):
        made = snapshots.reconstruct(std, end)
        path = torch.stack(witness.weights)[:end]
        direct = torch.from_numpy(profile(std, len(path))).float() @ path
        assert float((flat(made) - direct).norm() / path.std(0).norm()) < 0.02, std
        assert (made.ema_std, made.ema_half_life) == (std, None)
        assert made.data_mean.tolist() == found.denoiser.data_mean.tolist()


def test_what_is_kept_by_width_is_chosen_by_it(tmp_path: Path) -> None:
    found, _ = trained()
    path = tmp_path / "weights.safetensors"
    save({1000.0: copy.deepcopy(found.averaged[0.1]), **found.averaged}, path)
    assert digest(load(path, ema_std=0.05)) == digest(found.averaged[0.05])
    assert (
        digest(load(path)) == digest(load(path, ema_half_life=1000)) == digest(found.averaged[0.1])
    )
    named = [load(path), load(path, ema_std=0.1)]
    assert [(one.ema_half_life, one.ema_std) for one in named] == [(1000, None), (None, 0.1)]
    with pytest.raises(ValueError, match=r"no average with relative width 0.2, allowed: 0.05, 0.1"):
        load(path, ema_std=0.2)
    with pytest.raises(ValueError, match=r"no average with half-life 0.05, allowed: 1000"):
        load(path, ema_half_life=0.05)


def test_stops_and_processes_change_no_bit_of_averages_and_snapshots(tmp_path: Path) -> None:
    def bits(folder: Path, **options: Any) -> list[str]:
        averaged = trained(folder, **options)[0].averaged.values()
        files = sorted(folder.glob("step-*"))
        assert len(files) == 24
        return [*map(digest, averaged), *(digest(load(path, ema_std=0.1)) for path in files)]

    whole = bits(tmp_path / "whole")
    with stop_after(41, tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        trained(tmp_path / "again", checkpoints=checkpoints)
    with Checkpoints(tmp_path / "state") as checkpoints:
        assert bits(tmp_path / "again", checkpoints=checkpoints, observer=None) == whole

    def act(ranks: Ranks, folder: Path) -> list[str]:
        found, _ = trained(folder / "shared", ranks=ranks, sharded=True, observer=None)
        return [*map(digest, found.averaged.values())]

    assert together(2, tmp_path, act) == [whole[:2]] * 2
    shared = sorted((tmp_path / "shared").glob("step-*"))
    assert [digest(load(path, ema_std=0.1)) for path in shared] == whole[2:]
