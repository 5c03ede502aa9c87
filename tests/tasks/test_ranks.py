"""A training in several processes: one command as with one, and the same bytes whatever befalls them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from tasks.files import ranks as launcher
from tasks.files.device import Machine
from tests import shared
from tests.nursery import Nursery, nursery
from tests.shared import MIXTURE_TRAIN as STAGE
from tests.workspace import Workspace

TRAIN = ("train", "mixture", "vp", "0")
OUTPUTS = ("artifacts/models/mixture-vp-0.safetensors", "artifacts/curves/mixture-vp-0.csv")


def with_parts(root: Path) -> Workspace:
    """Return a workspace whose training has a batch of eight parts."""
    workspace = shared.with_mixture(root)
    params = workspace.params()
    params["models"]["vp"]["training"] |= {"parts": 8, "steps": 160}
    params["models"]["vp"]["network"]["mlp"] |= {"dropout": 0.1}
    workspace.write_params(params)
    workspace.dvc("repro", "--single-item", "check")
    return workspace


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return shared.once(tmp_path_factory, "parts", with_parts)


@pytest.fixture(scope="module")
def stages(untrained: Workspace) -> Iterator[Nursery]:
    with nursery(untrained) as made:
        yield made


@pytest.fixture
def workspace(untrained: Workspace, tmp_path: Path) -> Workspace:
    return shared.copy(untrained, tmp_path)


@pytest.fixture(scope="module")
def trained(
    untrained: Workspace, stages: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """Return a workspace whose training one process has done; tests may not change it."""
    workspace = shared.copy(untrained, tmp_path_factory.mktemp("alone"))
    stages.run(*TRAIN, where=workspace)
    return workspace


@pytest.fixture(scope="module")
def alone(trained: Workspace) -> bytes:
    return made(trained)


def made(workspace: Workspace, names: tuple[str, ...] = OUTPUTS) -> bytes:
    return b"".join((workspace.root / name).read_bytes() for name in names)


def in_processes(workspace: Workspace, count: int) -> None:
    """Have stages run in so many processes, as `check` would write it."""
    path = workspace.root / "artifacts/resolved/keeping.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processes": count}))


def changed(workspace: Workspace, **training: object) -> None:
    """Change params.yaml, and check it."""
    params = workspace.params() | {"processes": 2}
    params["models"]["vp"]["training"] |= training
    workspace.write_params(params)
    workspace.dvc("repro", "--single-item", "check")


def states(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / ".scoremodel/state").rglob("step-*.safetensors"))


def ranks_of(trainer: int, count: int) -> list[psutil.Process]:
    """Return a trainer's processes, once they are there."""
    found: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(found) < count:
        assert time.monotonic() < deadline
        found = psutil.Process(trainer).children()
        time.sleep(0.01)
    return sorted(found, key=lambda process: process.pid)


def until_saved(workspace: Workspace) -> None:
    deadline = time.monotonic() + 120
    while not states(workspace):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def two_at_work(workspace: Workspace, stages: Nursery) -> tuple[int, list[psutil.Process]]:
    """Return a trainer and its two processes, once they have saved something."""
    in_processes(workspace, 2)
    trainer = stages.start(*TRAIN, where=workspace)
    ranks = ranks_of(trainer, 2)
    until_saved(workspace)
    return trainer, ranks


@pytest.mark.parametrize(
    ("wanted", "cores", "threads", "device", "gpus", "parts", "count"),
    [
        (1, 8, 1, "cpu", 0, 8, 1),
        (8, 2, 1, "cpu", 0, 8, 8),
        (8, 2, 1, "cpu", 0, 2, 2),
        (7, 2, 1, "cpu", 0, 8, 4),
        ("auto", 8, 2, "cpu", 0, 8, 4),
        ("auto", 6, 1, "auto", 0, 8, 4),
        ("auto", 1, 1, "cpu", 0, 8, 1),
        ("auto", 2, 1, "auto", 8, 8, 8),
        ("auto", 2, 1, "auto", 8, 4, 4),
        ("auto", 8, 1, "cuda:1", 8, 8, 1),
        ("auto", 8, 1, "cpu", 8, 2, 2),
    ],
)
def test_how_many_processes_there_are(
    wanted: int | str,
    cores: int,
    threads: int,
    device: str,
    gpus: int,
    parts: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A power of two that divides the parts: a GPU each, or `threads` of the cores each."""
    keeping = {"processes": wanted, "cores": cores}
    monkeypatch.setattr(launcher, "resolved", {"keeping": keeping}.get)
    monkeypatch.setattr(Machine, "read", lambda: Machine(threads, device, False, True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert launcher.processes(parts) == count


def test_the_number_of_processes_is_no_input_of_the_stage(
    workspace: Workspace, alone: bytes
) -> None:
    changed(workspace)
    said = workspace.dvc("repro", "--single-item", STAGE)
    assert ", 2 processes" in said
    assert said.count("device: cpu") == 1
    assert made(workspace) == alone
    workspace.write_params(workspace.params() | {"processes": 8})
    workspace.dvc("repro", "--single-item", "check")
    assert "didn't change, skipping" in workspace.dvc("repro", "--single-item", STAGE)


def test_what_is_stopped_goes_on_in_another_number_of_processes(
    workspace: Workspace, alone: bytes, stages: Nursery
) -> None:
    in_processes(workspace, 4)
    trainer = stages.start(*TRAIN, where=workspace)
    until_saved(workspace)
    os.kill(trainer, signal.SIGTERM)
    said = stages.end(status=128 + signal.SIGTERM)
    assert len(re.findall("stopped after step", said)) == 1
    assert "of 160, whose state is in" in said
    in_processes(workspace, 1)
    assert "goes on from" in stages.run(*TRAIN, where=workspace)
    assert made(workspace) == alone


def test_a_killed_process_ends_all_with_its_status_and_nothing_is_lost(
    workspace: Workspace, alone: bytes, stages: Nursery
) -> None:
    _, ranks = two_at_work(workspace, stages)
    ranks[1].kill()
    said = stages.end(status=128 + signal.SIGKILL)
    assert "error: process 1 of 2 was ended by SIGKILL; the same command goes on" in said
    assert "Traceback" not in said
    assert not any(process.is_running() for process in ranks)
    in_processes(workspace, 4)
    assert "goes on from" in stages.run(*TRAIN, where=workspace)
    assert made(workspace) == alone


def test_the_processes_stop_with_the_trainer_and_save(
    workspace: Workspace, alone: bytes, stages: Nursery
) -> None:
    trainer, ranks = two_at_work(workspace, stages)
    os.kill(trainer, signal.SIGKILL)
    stages.end(status=-signal.SIGKILL)
    assert not psutil.wait_procs(ranks, timeout=60)[1]
    stages.run(*TRAIN, where=workspace)
    assert made(workspace) == alone


def test_a_loss_that_is_not_finite_is_said_once(workspace: Workspace, stages: Nursery) -> None:
    changed(workspace, learning_rate=100.0, clip_norm=1e12, warmup_steps=0)
    said = stages.run(*TRAIN, where=workspace, status=2)
    assert len(re.findall("error: non-finite (loss|gradient) of step", said)) == 1
    assert "Traceback" not in said


def test_a_second_command_at_the_same_work_is_refused_in_one_line(
    workspace: Workspace, stages: Nursery
) -> None:
    _, ranks = two_at_work(workspace, stages)
    for process in ranks:
        process.suspend()
    said = workspace.python("-m", "tasks.train", "mixture", "vp", "0", status=2)
    assert said.count("another process is at work on this run") == 1
    assert "Traceback" not in said
    for process in ranks:
        process.resume()
    stages.end()


SAMPLE = ("mixture", "vp", "0", "heun")
DRAWN = (
    "artifacts/samples/mixture-vp-0-heun.npz",
    "artifacts/features/mixture-vp-0-heun.npz",
    "artifacts/features/mixture-vp-0-heun-panel.npz",
)


@pytest.fixture(scope="module")
def drawable(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace ready to draw from its model, in many parts; tests may not change it."""
    workspace = shared.copy(trained, tmp_path_factory.mktemp("drawable"))
    params = workspace.params()
    params["active"]["samplers"] = ["heun"]
    params["samplers"]["heun"]["steps"] = 60
    params["evaluation"]["batch_size"] = 16
    workspace.write_params(params)
    workspace.dvc("repro", "--single-item", "check")
    workspace.dvc("repro", "--single-item", "extractor@mixture")
    return workspace


@pytest.fixture(scope="module")
def drawn(drawable: Workspace, stages: Nursery, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the samples and features that one process makes."""
    workspace = shared.copy(drawable, tmp_path_factory.mktemp("drawn"))
    for stage in ("sample", "features"):
        stages.run(stage, *SAMPLE, where=workspace)
    return made(workspace, DRAWN)


def chunks(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / ".scoremodel/state").rglob("seed-*.safetensors"))


def test_samples_and_features_are_the_same_in_several_processes(
    drawable: Workspace, drawn: bytes, stages: Nursery, tmp_path: Path
) -> None:
    workspace = shared.copy(drawable, tmp_path)
    in_processes(workspace, 4)
    for stage in ("sample", "features"):
        stages.run(stage, *SAMPLE, where=workspace)
    assert made(workspace, DRAWN) == drawn


def test_another_machine_helps_by_the_shared_state_folder(
    drawable: Workspace, drawn: bytes, stages: Nursery, tmp_path: Path
) -> None:
    """All is drawn elsewhere, and the stage, which has begun, collects it."""
    state = tmp_path / "shared"
    params = drawable.params()
    params["checkpoints"]["folder"] = str(state)
    here, there = (shared.copy(drawable, tmp_path / name) for name in ("here", "there"))
    for workspace in (here, there):
        workspace.write_params(params)
        workspace.dvc("repro", "--single-item", "check")
    stages.start("sample", *SAMPLE, before=NO_SAMPLING, where=here)
    said = there.python("-m", "tasks.sample", *SAMPLE, "--helps")
    assert "mixture-vp-0-heun: 21 of 21 parts drawn here" in said
    assert not (there.root / DRAWN[0]).exists()
    stages.end()
    assert list(state.iterdir()) == [*state.glob("*.lock")]
    stages.run("features", *SAMPLE, where=here)
    assert made(here, DRAWN) == drawn


def test_who_would_help_nobody_says_so(
    drawable: Workspace, stages: Nursery, tmp_path: Path
) -> None:
    """As when the work is done, or is that of another kind of machine."""
    workspace = shared.copy(drawable, tmp_path)
    soon = "from scoremodel.io import checkpoint; checkpoint._PATIENCE = 0.5"
    said = stages.run("sample", *SAMPLE, "--helps", before=soon, where=workspace, status=2)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "samples-mixture-vp-0-heun-" in line
    assert ": no process has begun to collect here: its work is done, or is other work" in line
    assert chunks(workspace) == []


# It draws nothing itself, and looks at what there is once all is there.
NO_SAMPLING = """
import time
from scoremodel.io import checkpoint
from scoremodel.samplers import sampling
sampling.sample = None
def fill(self, parts):
    while self.count() < 21:
        time.sleep(0.05)
checkpoint.Chunks.fill = fill
"""

# The process that writes is slow: what is made meanwhile, its helpers make.
SLOW = """
import os, time
from scoremodel.io import checkpoint
real, own = checkpoint.Chunks._compute, os.getpid()
def compute(self, name, make):
    if os.getpid() == own:
        time.sleep(0.5)
    elif not HELPS:
        time.sleep(600)
    return real(self, name, make)
checkpoint.Chunks._compute = compute
"""


def test_helpers_do_the_work_and_a_killed_one_leaves_its_part_to_the_others(
    drawable: Workspace, drawn: bytes, stages: Nursery, tmp_path: Path
) -> None:
    workspace = shared.copy(drawable, tmp_path)
    in_processes(workspace, 2)
    slow = stages.start("sample", *SAMPLE, before=SLOW.replace("HELPS", "True"), where=workspace)
    ranks_of(slow, 1)
    while len(chunks(workspace)) < 10:  # more than the slow one has had time for
        time.sleep(0.01)
    os.kill(slow, signal.SIGTERM)
    assert "; the same command goes on from there" in stages.end(status=128 + signal.SIGTERM)
    kept = {path: path.stat().st_mtime_ns for path in chunks(workspace)}
    assert len(kept) >= 10

    waiting = stages.start(
        "sample", *SAMPLE, before=SLOW.replace("HELPS", "False"), where=workspace
    )
    (helper,) = ranks_of(waiting, 1)
    left = 21 - len(kept)  # three seeds of seven parts, one of which the helper holds
    while len(chunks(workspace)) < len(kept) + left - 1:
        time.sleep(0.01)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    helper.kill()
    stages.end()
    stages.run("features", *SAMPLE, where=workspace)
    assert made(workspace, DRAWN) == drawn


SPAWN = """
import tasks.files.ranks as ranks
real = ranks.start_processes
ranks.start_processes = lambda *args, **given: real(*args, **{**given, "start_method": "spawn"})
"""


@pytest.mark.slow
def test_processes_that_are_no_forks_as_on_gpus_do_the_same(
    workspace: Workspace, alone: bytes
) -> None:
    in_processes(workspace, 2)
    run = f"{SPAWN}\nimport runpy, sys\nif __name__ == '__main__':\n    sys.argv[:] = {list(TRAIN)!r}\n"
    (workspace.root / "spawned.py").write_text(
        f"{run}    runpy.run_module('tasks.train', run_name='__main__', alter_sys=True)\n"
    )
    workspace.python("spawned.py")
    assert made(workspace) == alone


@pytest.mark.slow
def test_two_of_torchrun_s_agents_as_on_two_machines_do_the_same(
    workspace: Workspace, alone: bytes
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    agents = [
        workspace.start(
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"),
            *("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"),
            *("-m", "tasks.train", "mixture", "vp", "0"),
        )
        for node in range(2)
    ]
    for agent in agents:
        _, said = agent.communicate(timeout=300)
        assert agent.returncode == 0, said
    assert made(workspace) == alone


@pytest.mark.kills
def test_ten_kills_of_any_process_at_random_moments_lose_nothing(
    workspace: Workspace, alone: bytes, stages: Nursery
) -> None:
    """With another number of processes after each."""
    draw = random.Random(7)
    kills = 0
    while kills < 10:
        if (workspace.root / OUTPUTS[0]).exists():  # the last kill has come too late: once more
            assert made(workspace) == alone
            (workspace.root / OUTPUTS[0]).unlink()
        count = draw.choice([2, 4, 8])
        in_processes(workspace, count)
        trainer = stages.start(*TRAIN, where=workspace)
        ranks = ranks_of(trainer, count)
        time.sleep(draw.uniform(0, 3))
        with suppress(psutil.NoSuchProcess):
            ranks[draw.randrange(count)].kill()
            kills += 1
        stages.wait()
    in_processes(workspace, 1)
    stages.run(*TRAIN, where=workspace)
    assert made(workspace) == alone
