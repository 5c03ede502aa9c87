"""Checkpoints: a training that was cut off anywhere ends with the uninterrupted one's bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints, Chunks, Stopped
from scoremodel.processes.vp import VP
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.times.uniform import Stratified
from tests.scoremodel.test_training import NETWORK, Witness, digest, images

STEPS = 13
CONFIG = TrainingConfig(
    steps=STEPS,
    batch_size=8,
    log_every=5,
    flip=True,
    schedule="cosine",
    warmup_steps=3,
    ema_half_lives=(1000, 5),
    times=Stratified(),  # or a band of the curves may be empty, whose loss is not a number
)


def run(checkpoints: Checkpoints | None) -> tuple[str, str]:
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORK, VP(), (1, 8, 8), [0.0], 0.6, 17)
    trained = train(denoiser, images(), CONFIG, 3, checkpoints=checkpoints)
    return "".join(map(digest, trained.averaged.values())), json.dumps(trained.curves)


@pytest.fixture(scope="module")
def whole() -> tuple[str, str]:
    return run(None)


def stop_after(steps: int, folder: Path, **options: int) -> Checkpoints:
    """Return checkpoints that ask their run to stop after some steps."""
    asked = iter([False] * (steps - 1) + [True])
    return Checkpoints(folder, stop=lambda: next(asked), **options)


@pytest.mark.parametrize("steps", range(1, STEPS))
def test_a_run_stopped_after_any_step_goes_on_to_the_same_bits(
    steps: int, tmp_path: Path, whole: tuple[str, str]
) -> None:
    """Losses, curves and weights, whether the stop falls on a point of the curves or between."""
    with (
        stop_after(steps, tmp_path / "state") as checkpoints,
        pytest.raises(Stopped, match=rf"after step {steps} of {STEPS}.*the same command goes on"),
    ):
        run(checkpoints)
    with Checkpoints(tmp_path / "state") as checkpoints:
        assert run(checkpoints) == whole


def test_a_run_with_every_option_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Labels, bfloat16, accumulation, activation checkpointing, and somebody who watches."""
    config = replace(CONFIG, precision="bfloat16", parts=2)
    labels = torch.arange(40) % 3

    def train_it(checkpoints: Checkpoints | None) -> tuple[str, str]:
        torch.manual_seed(0)
        network = NETWORK | {"checkpointing": True}
        denoiser = Denoiser(network, VP(), (1, 8, 8), [0.0], 0.6, 17, 3)
        trained = train(
            denoiser,
            images(),
            config,
            3,
            labels=labels,
            checkpoints=checkpoints,
            observer=Witness(denoiser),
        )
        return "".join(map(digest, trained.averaged.values())), json.dumps(trained.curves)

    whole = train_it(None)
    with stop_after(7, tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        train_it(checkpoints)
    with Checkpoints(tmp_path / "state") as checkpoints:
        assert train_it(checkpoints) == whole


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, whole: tuple[str, str]
) -> None:
    for steps in (3, 1, 4, 2):
        with stop_after(steps, tmp_path / "state") as checkpoints, pytest.raises(Stopped):
            run(checkpoints)
    with Checkpoints(tmp_path / "state", every_steps=2) as checkpoints:
        assert run(checkpoints) == whole
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step-0000000010.safetensors", "step-0000000012.safetensors"]
    checkpoints.remove()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str, tmp_path: Path, whole: tuple[str, str]
) -> None:
    said: list[str] = []
    with stop_after(9, tmp_path / "state", every_steps=4) as checkpoints, pytest.raises(Stopped):
        run(checkpoints)
    older, newest = sorted((tmp_path / "state").iterdir())
    assert [older.name[-14:-12], newest.name[-14:-12]] == ["08", "09"]
    content = bytearray(newest.read_bytes())
    if damage == "bit":
        content[-100] ^= 1
    newest.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(damage, content))
    with Checkpoints(tmp_path / "state", warn=said.append) as checkpoints:
        found = checkpoints.latest()
        assert found is not None
        assert found[0] == 8
        assert run(checkpoints) == whole
    assert all(line.startswith(f"{newest}: damaged (") for line in said)
    assert len(said) == 2


def test_a_second_run_in_the_same_folder_is_refused_and_a_dead_one_is_not_in_the_way(
    tmp_path: Path,
) -> None:
    hold = (
        "import sys, time; from scoremodel.io.checkpoint import Checkpoints\n"
        "with Checkpoints(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match="state: another process is at work on this run"):
        Checkpoints(tmp_path / "state").__enter__()
    holder.kill()
    holder.wait()
    with Checkpoints(tmp_path / "state"):
        pass


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stop_after(4, tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        run(checkpoints)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        Checkpoints(tmp_path / "state", every_steps=6) as checkpoints,
        pytest.raises(OSError, match=r"No space left.*step-0000000006\.safetensors"),
    ):
        run(checkpoints)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-0000000004.safetensors"]
    with Checkpoints(tmp_path / "state") as checkpoints:
        assert run(checkpoints) == whole


def test_a_state_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    denoiser = Denoiser({"kind": "mlp", "width": 8, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    data = torch.zeros(64, 2)
    data[63] = torch.inf
    config = TrainingConfig(steps=16, batch_size=8, log_every=16)
    with (
        Checkpoints(tmp_path / "state", every_steps=1) as checkpoints,
        pytest.raises(FloatingPointError, match=r"non-finite loss of step \d+ at t = ") as error,
    ):
        train(denoiser, data, config, 0, checkpoints=checkpoints)
    first_bad = int(str(error.value).split("of step ")[1].split()[0])
    found = Checkpoints(tmp_path / "state").latest()
    assert (found[0] if found else 0) == first_bad - 1
    if found:
        assert all(bool(value.isfinite().all()) for value in found[1].values())


def test_finished_chunks_are_not_computed_again_and_damaged_ones_are(tmp_path: Path) -> None:
    computed: list[int] = []
    said: list[str] = []

    def part(index: int) -> dict[str, torch.Tensor]:
        computed.append(index)
        return {"x": torch.full((3,), float(index))}

    def collect(stop_after: int | None = None) -> list[float]:
        asked = (len(computed) == stop_after for _ in iter(int, 1))
        with Chunks(tmp_path / "state", lambda: next(asked), said.append) as chunks:
            parts = [chunks.get(f"part-{index}", lambda i=index: part(i)) for index in range(5)]
        return torch.cat([each["x"] for each in parts]).tolist()

    with pytest.raises(Stopped, match=r"stopped after part-2.*the same command goes on"):
        collect(stop_after=3)
    assert computed == [0, 1, 2]
    damaged = tmp_path / "state" / "part-1.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert collect() == [float(i) for i in range(5) for _ in range(3)]
    assert computed == [0, 1, 2, 1, 3, 4]
    (line,) = said
    assert line.startswith(f"{damaged}: damaged (its content is not what was written), computing")


def test_what_is_written_beside_the_run_is_the_state_when_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the tensors change meanwhile; and what goes wrong beside it is raised."""
    state = torch.zeros(3)
    with Checkpoints(tmp_path / "state") as checkpoints:
        slow, go = checkpoints._write, threading.Event()

        def write(*given: Any) -> None:
            assert go.wait(60)
            slow(*given)

        monkeypatch.setattr(checkpoints, "_write", write)
        checkpoints.save(1, {"x": state}, {"curves": [1]}, wait=False)
        assert not checkpoints.due(2)  # whatever the time
        state.fill_(7.0)
        go.set()
    found = Checkpoints(tmp_path / "state").latest()
    assert found is not None
    assert (found[0], found[1]["x"].tolist(), found[2]) == (1, [0.0] * 3, {"curves": [1]})


def test_checkpoints_by_time_take_two_percent_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second apart, or fifty times what the last one took: an eighth of a second each."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Checkpoints(tmp_path / "state", every_seconds=1.0) as checkpoints:
        real = checkpoints._write

        def write(*given: Any) -> None:
            now[0] += 1 / 8
            real(*given)

        monkeypatch.setattr(checkpoints, "_write", write)
        saved = []
        for step in range(1, 2001):
            now[0] += 1 / 64
            if checkpoints.due(step):
                checkpoints.save(step, {"x": torch.zeros(1)}, {})
                saved.append(step)
    assert saved == [64, 464, 864, 1264, 1664]
