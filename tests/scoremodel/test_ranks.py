"""Several processes train one model together: the same bytes for any number of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.processes.vp import VP
from scoremodel.ranks import LostRankError, Ranks, Tree, joined
from scoremodel.training import loop
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import Observer, train
from scoremodel.training.times.uniform import Stratified

CONFIG = TrainingConfig(
    steps=6,
    batch_size=16,
    parts=8,
    log_every=4,
    flip=True,
    label_dropout=0.3,
    learning_rate=1e-2,
    warmup_steps=2,
    clip_norm=0.1,
    ema_half_lives=(1000, 5),
    times=Stratified(),
)
Act = Callable[[Ranks, Path], Any]


def _rank(rank: int, world_size: int, folder: Path, act: Act) -> None:
    torch.set_num_threads(1)
    with joined(rank, world_size, folder / f"meeting-{world_size}") as ranks:
        result = act(ranks, folder)
    (folder / f"result-{world_size}-{rank}.json").write_text(json.dumps(result))


def together(world_size: int, folder: Path, act: Act) -> list[Any]:
    """Return what each of some processes returns."""
    start_processes(_rank, (world_size, folder, act), world_size, start_method="fork")  # type: ignore[no-untyped-call]
    return [
        json.loads((folder / f"result-{world_size}-{rank}.json").read_text())
        for rank in range(world_size)
    ]


def trained(
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
    config: TrainingConfig = CONFIG,
    unused: bool = False,
    sharded: bool = False,
    observer: Observer | None = None,
) -> str:
    """Return the hash of the weights, averages and curves of a small training."""
    torch.manual_seed(0)
    network = {"kind": "unet", "width": 8, "multipliers": [1, 2], "dropout": 0.1}
    denoiser = Denoiser(network, VP(), (1, 8, 8), [0.0], 0.6, 17, 3)
    if unused:
        denoiser.network.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 17, (40, 1, 8, 8), generator=draw, dtype=torch.uint8)
    labels = torch.arange(40) % 3
    more: dict[str, Any] = {"checkpoints": checkpoints, "ranks": ranks, "sharded": sharded}
    more["observer"] = observer
    found = train(denoiser, images, config, 3, labels=labels, **more)
    return digest(denoiser, *found.averaged.values(), curves=found.curves)


def digest(*models: Denoiser, curves: Any = None) -> str:
    """Return the hash of models' weights, and of curves."""
    made = hashlib.sha256(json.dumps(curves).encode())
    for model in models:
        for weight in model.state_dict().values():
            made.update(weight.contiguous().numpy().tobytes())
    return made.hexdigest()


@pytest.fixture(scope="module")
def alone() -> str:
    return trained(Ranks())


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_a_training_s_bytes_do_not_depend_on_the_number_of_processes(
    world_size: int, alone: str, tmp_path: Path
) -> None:
    """Of weights, averages and curves, with dropout, flips and classes."""
    assert together(world_size, tmp_path, lambda ranks, _: trained(ranks)) == [alone] * world_size


def test_nor_do_they_in_bfloat16_with_gradients_of_gradients_and_unused_weights(
    tmp_path: Path,
) -> None:
    """Unused: one that is in no loss has a gradient of zero in every process."""

    def act(ranks: Ranks, _: Path) -> list[str]:
        half, sliced = replace(CONFIG, precision="bfloat16"), replace(CONFIG, objective="sliced")
        return [trained(ranks, config=half), trained(ranks, config=sliced, unused=True)]

    alone = act(Ranks(), tmp_path)
    assert together(4, tmp_path, act) == [alone] * 4


class _Watcher:
    """Looks at the average after every third step, of which it keeps the hash."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.seen: list[str] = []
        self.next = 0

    def begin(self, step: int) -> None:
        self.next = step + 1

    def point(self, point: Mapping[str, float]) -> None:
        pass

    def asks(self) -> bool:
        asked = self.next % 3 == 0
        self.next += 1
        return asked

    def step(self, step: int, averaged: Denoiser) -> None:
        self.steps.append(step)
        self.seen.append(digest(averaged))


def _kept(ranks: Ranks, sharded: bool) -> list[Any]:
    """Return the hash of a training, what its first process saw, and how many numbers each one keeps."""
    watcher = _Watcher() if ranks.first else None
    kept: list[int] = []
    advance = loop._Run.advance

    def counting(run: loop._Run, *rest: Any) -> Any:
        found = advance(run, *rest)
        held = [m for name, m in run.optimiser.kept() if not name.startswith("step.")]
        kept.append(sum(one.numel() for one in [*held, *chain(*run.means.values())]))
        return found

    with mock.patch.object(loop._Run, "advance", counting):
        found = trained(ranks, sharded=sharded, observer=watcher)
    seen = ranks.told((watcher.steps, watcher.seen) if watcher else None)
    (each,) = set(kept)
    return [found, *seen, each]


def test_nor_do_they_by_muon_with_its_momentum_shared_and_across_a_stop(tmp_path: Path) -> None:
    """The state of matrices and of the rest, each from a checkpoint of its own kind."""
    muon = replace(CONFIG, optimiser="muon")
    alone = trained(Ranks(), config=muon)

    def act(ranks: Ranks, folder: Path) -> list[str]:
        asked = [False, False, True]
        stop = Checkpoints(folder / "state", 0, 1e9, lambda: bool(asked) and asked.pop(0))
        with suppress(Stopped):
            trained(ranks, stop, config=muon, sharded=True)
        whole = trained(ranks, Checkpoints(folder / "state", 0, 1e9), config=muon)
        return [whole, trained(ranks, config=muon, sharded=True)]

    assert alone != trained(Ranks())
    assert together(2, tmp_path, act) == [[alone] * 2] * 2


@pytest.mark.parametrize("world_size", [2, 4])
def test_shared_moments_and_averages_give_the_same_bytes_in_as_much_less_memory(
    world_size: int, alone: str, tmp_path: Path
) -> None:
    """Two moments and two averages: together the processes keep them once."""
    whole, steps, seen, numbers = _kept(Ranks(), True)
    assert (whole, steps) == (alone, [3, 6])
    found = together(world_size, tmp_path, lambda ranks, _: _kept(ranks, True))
    assert [one[:3] for one in found] == [[alone, steps, seen]] * world_size
    assert sum(one[3] for one in found) == numbers
    assert max(one[3] for one in found) < 1.1 * numbers / world_size


def test_a_run_with_shared_state_goes_on_in_any_number_of_processes(
    alone: str, tmp_path: Path
) -> None:
    assert "after step 2 of 6" in together(4, tmp_path, _stopping(2, by=1, sharded=True))[0]
    assert "after step 3 of 6" in together(2, tmp_path, _stopping(1, by=1))[0]
    assert "after step 4 of 6" in together(1, tmp_path, _stopping(1, by=0, sharded=True))[0]
    assert "after step 5 of 6" in together(8, tmp_path, _stopping(1, by=5, sharded=True))[0]
    goes_on: Act = lambda ranks, folder: trained(ranks, Checkpoints(folder / "state"))  # noqa: E731
    assert together(2, tmp_path, goes_on) == [alone] * 2


def test_fewer_weights_than_processes_share_too(tmp_path: Path) -> None:
    def act(ranks: Ranks, _: Path) -> str:
        torch.manual_seed(0)
        denoiser = Denoiser(Linear(), VP(), (2,), [0.0, 0.0], 1.0)
        data = torch.randn(32, 2, generator=torch.Generator().manual_seed(1))
        config = TrainingConfig(steps=3, batch_size=8, parts=4, log_every=1, learning_rate=0.1)
        return digest(train(denoiser, data, config, 0, ranks=ranks, sharded=True).denoiser)

    assert together(4, tmp_path, act) == [act(Ranks(), tmp_path)] * 4


class Linear(torch.nn.Module):
    """A network of two weights, a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, labels: Any = None) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def _plain_sum(_: Ranks, summand: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(summand)
    return summand


def test_a_plain_sum_in_place_of_the_tree_gives_other_bytes(
    alone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would see nothing."""
    monkeypatch.setattr(Ranks, "total", _plain_sum)
    monkeypatch.setattr(Tree, "add", _in_order)
    monkeypatch.setattr(Tree, "total", lambda self: self.levels[0][1])
    assert together(2, tmp_path, lambda ranks, _: trained(ranks))[0] != alone
    assert together(4, tmp_path, lambda ranks, _: trained(ranks))[0] != alone


def _in_order(self: Tree, summand: list[torch.Tensor]) -> None:
    if self.levels:
        torch._foreach_add_(self.levels[0][1], summand)
    else:
        self.levels.append((0, list(summand)))


def test_the_sum_is_the_binary_tree_s(tmp_path: Path) -> None:
    """Of eight float32 numbers whose sum is another one in every other order that is near."""
    terms = [1.0, 1e8, -1e8, 3.0, 2.0**-20, 7.0, 1e-3, -5.0]
    row = torch.tensor(terms)

    def tree(values: torch.Tensor) -> float:
        while len(values) > 1:
            values = values[0::2] + values[1::2]
        return float(values[0])

    def summed(ranks: Ranks, _: Path) -> list[float]:
        own = Tree()
        for part in ranks.share(8):
            own.add([row[part].repeat(5)])
        return ranks.total(own.total()[0]).tolist()

    assert tree(row) != float(row.double().sum())
    for world_size in (1, 2, 4, 8):
        found = together(world_size, tmp_path, summed)
        assert found == [[tree(row)] * 5] * world_size


def _stopping(steps: int, by: int, sharded: bool = False) -> Act:
    """Return a training in which the process `by` asks for a stop after some steps."""

    def act(ranks: Ranks, folder: Path) -> str:
        asked = iter([False] * (steps - 1) + [ranks.rank == by])
        checkpoints = Checkpoints(folder / "state", stop=lambda: next(asked))
        try:
            return trained(ranks, checkpoints, sharded=sharded)
        except Stopped as error:
            return str(error)

    return act


def test_a_run_goes_on_with_any_other_number_of_processes(alone: str, tmp_path: Path) -> None:
    """The stop of one process stops all after the same step, whose state the first one saves."""
    said = together(4, tmp_path, _stopping(1, by=3))
    assert [one.split(",")[0] for one in said] == ["stopped after step 1 of 6"] * 4
    assert together(1, tmp_path, _stopping(2, by=0))[0].startswith("stopped after step 3 of 6")
    assert together(8, tmp_path, _stopping(1, by=5))[7].startswith("stopped after step 4 of 6")
    goes_on: Act = lambda ranks, folder: trained(ranks, Checkpoints(folder / "state"))  # noqa: E731
    assert together(2, tmp_path, goes_on) == [alone] * 2


def test_a_loss_that_is_not_finite_stops_every_process_with_the_same_words(tmp_path: Path) -> None:
    def act(ranks: Ranks, _: Path) -> str:
        config = replace(CONFIG, learning_rate=100.0, warmup_steps=0, clip_norm=1e12, steps=40)
        try:
            return trained(ranks, config=config)
        except FloatingPointError as error:
            return str(error)

    alone = act(Ranks(), tmp_path)
    assert alone.startswith("non-finite ")
    assert together(2, tmp_path, act) == [alone] * 2


def test_who_loses_another_process_says_so(tmp_path: Path) -> None:
    def act(ranks: Ranks, folder: Path) -> str:
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torch's launcher sends to the others
        try:
            return trained(ranks)
        except LostRankError:
            (folder / "lost").touch()
            raise

    with pytest.raises(ProcessExitedException):
        together(2, tmp_path, act)
    assert (tmp_path / "lost").exists()


def test_what_is_no_power_of_two_or_more_than_the_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="world_size: 3 is not allowed, allowed: a power of two"):
        Ranks(0, 3)
    with pytest.raises(ValueError, match="rank: 2 is not allowed, allowed: from 0 to 1"):
        Ranks(2, 2)
    with pytest.raises(ValueError, match="16 processes are not allowed for 8 parts"):
        trained(Ranks(0, 16))


def test_a_network_with_batch_normalisation_is_refused_in_several_processes() -> None:
    """What it counts is of the process's own parts."""
    network = {"kind": "mlp", "width": 8, "depth": 1}
    denoiser = Denoiser(network, VP(), (2,), [0.0, 0.0], 1.0)
    denoiser.network.add_module("norm", torch.nn.BatchNorm1d(8))
    config = TrainingConfig(steps=1, batch_size=8, parts=2)
    train(denoiser, torch.zeros(8, 2), config, 0)
    with pytest.raises(ValueError, match="batch normalisation is not allowed in several processes"):
        train(denoiser, torch.zeros(8, 2), config, 0, ranks=Ranks(0, 2))
