"""A training that is killed, whenever and however, goes on through `dvc repro` to the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import shared
from tests.nursery import Nursery, nursery
from tests.shared import MIXTURE_TRAIN as STAGE
from tests.shared import MIXTURE_WEIGHTS as WEIGHTS
from tests.workspace import Workspace

TRAIN = ("train", "mixture", "vp", "0")

# A training that is asked to stop while it saves its second checkpoint, and so does after a third.
STOP_AFTER_TWO = """
import os, signal
from scoremodel.io import checkpoint
real = checkpoint.Checkpoints.save
def save(self, step, *rest):
    real(self, step, *rest)
    if step == 40:
        os.kill(os.getpid(), signal.SIGTERM)
checkpoint.Checkpoints.save = save
"""

# A training that is killed during its third checkpoint's write.
KILL_AT_THIRD = """
import os, signal
real, calls = os.fsync, []
def fsync(number):
    real(number)
    path = os.readlink(f"/proc/self/fd/{number}")
    calls.extend([path] * ("step-" in path))
    if len(calls) == 3:
        if CUT:
            os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
"""

# A stage whose parts are counted; it gets a signal after some of them.
COUNTED = """
import os, sys
from scoremodel.io import checkpoint
import tasks.features
sys.modules[tasks.features.extracted.__module__]._CHUNK = 32
real, made = checkpoint.Chunks._write, []
def write(self, name, tensors, content):
    real(self, name, tensors, content)
    made.append(name)
    print("made", len(made), flush=True)
    if len(made) == AFTER:
        os.kill(os.getpid(), NUMBER)
checkpoint.Chunks._write = write
"""

# A sampler that breaks three samples of the second seed, which are of two batches.
BROKEN = """
import dataclasses, math
from scoremodel.samplers import sampling
real = sampling.sample
def sample(model, sampler, count, seed, **more):
    drawn = real(model, sampler, count, seed, **more)
    x = drawn.x.clone()
    if seed == 1:
        x[3, 0, 2, 2] = math.nan
        x[0, 0, :, 0] = math.inf if more["start"] else 0
    return dataclasses.replace(drawn, x=x)
sampling.sample = sample
"""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with a training to do; tests may not change it."""
    return shared.once(tmp_path_factory, "mixture", shared.with_mixture)


@pytest.fixture(scope="module")
def whole(untrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the hash of the weights that the training gives when nothing disturbs it."""
    workspace = shared.copy(untrained, tmp_path_factory.mktemp("whole"))
    workspace.dvc("repro", "--single-item", STAGE)
    assert states(workspace) == []
    return digest(workspace)


@pytest.fixture
def workspace(untrained: Workspace, tmp_path: Path) -> Workspace:
    """Return a workspace with a training to do, for one test, whose processes it may look for."""
    return shared.copy(untrained, tmp_path, warm=False)


@pytest.fixture(scope="module")
def stages(untrained: Workspace) -> Iterator[Nursery]:
    """Return what runs stages of unedited workspaces."""
    with nursery(untrained) as made:
        yield made


def train_for(workspace: Workspace, steps: int, every_steps: int, **training: Any) -> None:
    shared.train_for(workspace, steps, every_steps, **training)
    workspace.dvc("repro", "--single-item", "check")


def digest(workspace: Workspace) -> str:
    return hashlib.sha256((workspace.root / WEIGHTS).read_bytes()).hexdigest()


def states(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / ".scoremodel/state").rglob("step-*.safetensors"))


def is_trainer(process: psutil.Process) -> bool:
    try:
        return "tasks.train" in process.cmdline() and "python" in process.name()
    except (
        psutil.NoSuchProcess
    ):  # DVC's own short-lived children come and go while they are looked at
        return False


def started(workspace: Workspace, *command: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Return a `dvc repro` of the training (or another command), and its trainer once at work."""
    before = {path.name for path in states(workspace)}
    dvc = workspace.start(*(command or ("dvc", "repro", "--single-item", STAGE)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert dvc.poll() is None, dvc.communicate()
        for child in psutil.Process(dvc.pid).children(recursive=True):
            if is_trainer(child):
                while {path.name for path in states(workspace)} <= before:
                    assert dvc.poll() is None, dvc.communicate()
                    time.sleep(0.01)
                return dvc, child
        time.sleep(0.02)
    raise AssertionError("no trainer appeared")


def test_a_trainer_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bytes(
    workspace: Workspace, whole: str, stages: Nursery
) -> None:
    trainer = stages.start(*TRAIN, where=workspace)
    while not states(workspace):
        assert psutil.Process(trainer).status() != psutil.STATUS_ZOMBIE
        time.sleep(0.01)
    os.kill(trainer, signal.SIGSTOP)  # so that it is still at work when the second one starts
    second = workspace.python("-m", "tasks.train", "mixture", "vp", "0", status=2)
    assert "another process is at work on this run" in second
    os.kill(trainer, signal.SIGCONT)
    os.kill(trainer, signal.SIGTERM)
    said = stages.end(status=128 + signal.SIGTERM)
    assert "of 300, whose state is in" in said
    assert "the same command goes on from there" in said
    assert not (workspace.root / WEIGHTS).exists()
    assert "goes on from" in stages.run(*TRAIN, where=workspace)
    assert digest(workspace) == whole
    assert states(workspace) == []


@pytest.mark.parametrize("shell", ["/bin/sh", pytest.param("/bin/bash", marks=pytest.mark.slow)])
def test_the_trainer_dies_with_its_dvc_and_the_next_repro_goes_on(
    workspace: Workspace, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DVC runs a stage's command in the user's shell, and some stay there as the trainer's parent.
    monkeypatch.setenv("SHELL", shell)
    dvc, trainer = started(workspace)
    dvc.kill()
    dvc.wait()
    trainer.wait(timeout=120)
    kept = states(workspace)
    assert kept
    dvc, trainer = started(workspace)
    assert int(states(workspace)[-1].stem[5:]) > int(kept[-1].stem[5:])
    trainer.terminate()
    dvc.communicate(timeout=60)
    assert dvc.returncode == 255


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_goes_on_in_another_one(workspace: Workspace) -> None:
    """Its state lies in the person's workspace, not in the folder that DVC makes and deletes."""
    experiment = ("dvc", "exp", "run", "--temp", STAGE)
    dvc, trainer = started(workspace, *experiment)
    assert Path(trainer.cwd()) != workspace.root
    trainer.terminate()
    dvc.communicate(timeout=120)
    kept = states(workspace)
    dvc, trainer = started(workspace, *experiment)
    assert int(states(workspace)[-1].stem[5:]) > int(kept[-1].stem[5:])
    trainer.terminate()
    dvc.communicate(timeout=120)


def test_a_training_that_diverges_says_where_and_writes_no_weights(
    workspace: Workspace, stages: Nursery
) -> None:
    wild = {"learning_rate": 100.0, "warmup_steps": 0, "schedule": "constant"}
    train_for(workspace, 40, every_steps=1, **wild)
    said = stages.run(*TRAIN, where=workspace, status=2)
    line = re.search(
        r"error: non-finite (?:loss|gradient) of step (\d+).*, learning rate 100, found after",
        said,
    )
    assert line is not None, said
    assert not (workspace.root / WEIGHTS).exists()
    assert states(workspace)[-1].stem == f"step-{int(line[1]) - 1:010}"


def test_a_kill_during_a_checkpoint_s_write_leaves_the_one_before(
    workspace: Workspace, whole: str, stages: Nursery
) -> None:
    for in_the_middle_of_the_file in (True, False):  # or before it has its name
        fault = f"CUT = {in_the_middle_of_the_file}\n{KILL_AT_THIRD}"
        stages.run(*TRAIN, before=fault, where=workspace, status=-signal.SIGKILL)
        kept = [path.stem for path in states(workspace)]
        assert kept == ["step-0000000020", "step-0000000040"]
        assert "goes on from" in stages.run(*TRAIN, where=workspace)
        assert digest(workspace) == whole
        (workspace.root / WEIGHTS).unlink()


def test_another_run_does_not_go_on_from_this_one_s_state(
    workspace: Workspace, stages: Nursery
) -> None:
    stages.run(*TRAIN, before=STOP_AFTER_TWO, where=workspace, status=128 + signal.SIGTERM)
    (folder,) = {path.parent for path in states(workspace)}
    train_for(workspace, 40, every_steps=20)
    assert "goes on from" not in stages.run(*TRAIN, where=workspace)
    assert {path.parent for path in states(workspace)} == {folder}


@pytest.mark.parametrize(
    ("stage", "folder", "chunks"), [("sample", "samples", 12), ("features", "features", 36)]
)
def test_sampling_and_features_go_on_by_finished_chunk(
    copied: Workspace, stages: Nursery, stage: str, folder: str, chunks: int
) -> None:
    """Four of 100 samples for each of three seeds; features by the judge and a panel of two."""
    params = copied.params()
    params["evaluation"]["batch_size"] = 32
    copied.write_params(params)
    copied.dvc("repro", "--single-item", "check")
    made = copied.root / f"artifacts/{folder}/digits-vp-0-heun.npz"
    command = (stage, "digits", "vp", "0", "heun")

    def parts(said: str) -> int:
        return int(said.split("made ")[-1].split()[0])

    counted = f"AFTER, NUMBER = 0, 0\n{COUNTED}"
    assert parts(stages.run(*command, before=counted, where=copied)) == chunks
    whole = made.read_bytes()
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        made.unlink()
        fault = f"AFTER, NUMBER = 5, {int(number)}\n{COUNTED}"
        said = stages.run(*command, before=fault, where=copied, status=status)
        if number == signal.SIGTERM:
            assert re.search(r"stopped after (judge-)?seed", said)
            assert "the same command goes on from there" in said
        assert not made.exists()
        shutil.rmtree(copied.root / "kept", ignore_errors=True)
        shutil.copytree(copied.root / ".scoremodel", copied.root / "kept")
        assert parts(stages.run(*command, before=counted, where=copied)) == chunks - 5
        assert made.read_bytes() == whole
        assert list((copied.root / ".scoremodel/state").glob(f"{folder}-*/*")) == []
    # After an edit it is other work, which begins at its first part.
    shutil.copytree(copied.root / "kept", copied.root / ".scoremodel", dirs_exist_ok=True)
    with (copied.root / f"tasks/{stage}.py").open("a") as code:
        code.write("EDITED = True\n")
    copied.dvc("repro", "--single-item", "check")
    edited = (
        f"{counted}\nimport runpy\nsys.argv[:] = {list(command)}\n"
        f"runpy.run_module('tasks.{stage}', run_name='__main__', alter_sys=True)"
    )
    assert parts(copied.python("-c", edited)) == chunks


def test_samples_that_are_not_finite_are_counted_and_not_written(
    copied: Workspace, stages: Nursery
) -> None:
    """Of 100 samples in two batches; grey levels would make black pixels of them."""
    command = ("sample", "digits", "vp", "0", "heun")
    made = [copied.root / f"artifacts/{name}/digits-vp-0-heun.npz" for name in ("samples", "shown")]
    before = [path.read_bytes() if path.exists() else None for path in made]
    said = stages.run(*command, before=BROKEN, where=copied, status=2)
    assert said.splitlines()[-1] == (
        "error: digits-vp-0-heun: 3 of 100 samples of sampling seed 1 hold a value that is not finite; "
        "no samples are written"
    )
    assert [path.read_bytes() if path.exists() else None for path in made] == before
    assert list((copied.root / ".scoremodel/state").glob("samples-*/*")) == []
    made[0].unlink()
    stages.run(*command, where=copied)
    assert made[0].read_bytes() == before[0]


@pytest.mark.parametrize("trouble", ["full", pytest.param("read-only", marks=pytest.mark.slow)])
def test_a_state_folder_that_cannot_be_written_gets_one_line_and_keeps_what_is_good(
    workspace: Workspace, whole: str, trouble: str
) -> None:
    """A real file system of a few blocks, or one that is read-only, mounted for the run alone."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).returncode:
        pytest.skip("no file system can be mounted here")
    folder = workspace.root / ".scoremodel/state"
    folder.mkdir(parents=True, exist_ok=True)
    if trouble == "read-only":
        break_it, mend_it = "mount -o remount,ro none .scoremodel/state", "mount -o remount,rw none"
    else:
        # What two checkpoints take, and half a third.
        break_it = (
            "used=$(du -sk .scoremodel/state | cut -f1);"
            "mount -o remount,size=$((used + 4))k none .scoremodel/state"
        )
        mend_it = "mount -o remount,size=64m none"
    kept = "for step in 40 41; do ls .scoremodel/state/*/step-00000000$step.safetensors; done >&2"
    with nursery(workspace, prefix=("unshare", "-rm")) as stages:
        stages.shell("mount -t tmpfs -o size=64m none .scoremodel/state")
        stages.run(*TRAIN, before=STOP_AFTER_TWO, status=143)
        stages.shell(f"{break_it} && {kept}")
        said = stages.run(*TRAIN, status=2)
        stages.shell(kept)
        assert not (workspace.root / WEIGHTS).exists()
        stages.shell(f"{mend_it} .scoremodel/state")
        assert "goes on from" in stages.run(*TRAIN)
    line = next(line for line in said.splitlines() if line.startswith("error: "))
    reason = "Read-only file system" if trouble == "read-only" else "No space left on device"
    assert reason in line
    assert ".scoremodel/state/mixture-vp-0-" in line
    assert digest(workspace) == whole


@pytest.mark.kills
def test_twenty_kills_at_random_moments_change_nothing(workspace: Workspace) -> None:
    train_for(workspace, 1500, every_steps=7)
    workspace.dvc("repro", "--single-item", STAGE)
    whole = digest(workspace)
    (workspace.root / WEIGHTS).unlink()
    workspace.run("rm", "-rf", ".dvc/cache", "dvc.lock")
    workspace.dvc("repro", "prepare@mixture")
    draw = random.Random(0)
    for _ in range(20):
        dvc, trainer = started(workspace)
        time.sleep(draw.uniform(0, 0.1))  # a checkpoint is due every thirty milliseconds
        trainer.kill()
        dvc.communicate(timeout=60)
        assert dvc.returncode == 255
        assert not (workspace.root / WEIGHTS).exists()
    workspace.dvc("repro", "--single-item", STAGE)
    assert digest(workspace) == whole
    assert states(workspace) == []
