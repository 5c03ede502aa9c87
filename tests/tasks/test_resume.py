"""A training that is killed, whenever and however, goes on through `dvc repro` to the same bytes."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.workspace import Workspace

STAGE = "train@digits-vp-0"
WEIGHTS = "artifacts/models/digits-vp-0.safetensors"


# A training that is asked to stop while it saves its second checkpoint, and so does after a third.
STOP_AFTER_TWO = (
    "import os, signal, sys; from scoremodel import checkpoint; from tasks import train, stage; "
    "real = checkpoint.Checkpoints.save; "
    "checkpoint.Checkpoints.save = lambda self, step, *rest: "
    "(real(self, step, *rest), step == 16 and os.kill(os.getpid(), signal.SIGTERM)); "
    'sys.argv[1:] = ["digits", "vp", "0"]; stage.run(train.main)'
)


def train_for(workspace: Workspace, steps: int, every_steps: int) -> None:
    params = workspace.params()
    params["models"]["vp"]["training"] |= {"steps": steps, "log_every": 50}
    params["checkpoints"] |= {"every_steps": every_steps, "every_seconds": 0}
    workspace.write_params(params)


def digest(workspace: Workspace) -> str:
    return hashlib.sha256((workspace.root / WEIGHTS).read_bytes()).hexdigest()


def states(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / ".scoremodel/state").rglob("step-*.safetensors"))


def started(workspace: Workspace, *command: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Return a `dvc repro` of the training (or another command), and its trainer once at work."""
    before = {path.name for path in states(workspace)}
    dvc = workspace.start(*(command or ("dvc", "repro", "--single-item", STAGE)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert dvc.poll() is None, dvc.communicate()
        for child in psutil.Process(dvc.pid).children(recursive=True):
            if "tasks.train" in child.cmdline() and "python" in child.name():
                while {path.name for path in states(workspace)} <= before:
                    assert dvc.poll() is None, dvc.communicate()
                    time.sleep(0.02)
                return dvc, child
        time.sleep(0.02)
    raise AssertionError("no trainer appeared")


def test_a_trainer_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bytes(
    copied: Workspace,
) -> None:
    train_for(copied, 300, every_steps=20)
    copied.dvc("repro", "--single-item", STAGE)
    whole = digest(copied)
    assert states(copied) == []
    (copied.root / WEIGHTS).unlink()
    command = [sys.executable, "-m", "tasks.train", "digits", "vp", "0"]
    trainer = copied.start(*command)
    while not states(copied):
        time.sleep(0.02)
    second = copied.python("-m", "tasks.train", "digits", "vp", "0", status=2)
    assert "another process is at work on this run" in second
    trainer.send_signal(signal.SIGTERM)
    _, said = trainer.communicate(timeout=60)
    assert trainer.returncode == 128 + signal.SIGTERM
    assert "of 300, whose state is in" in said
    assert "the same command goes on from there" in said
    assert not (copied.root / WEIGHTS).exists()
    assert "goes on from" in copied.python(*command[1:])
    assert digest(copied) == whole
    assert states(copied) == []


@pytest.mark.parametrize("shell", ["/bin/sh", pytest.param("/bin/bash", marks=pytest.mark.slow)])
def test_the_trainer_dies_with_its_dvc_and_the_next_repro_goes_on(
    copied: Workspace, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DVC runs a stage's command in the user's shell, and some stay there as the trainer's parent.
    monkeypatch.setenv("SHELL", shell)
    train_for(copied, 4000, every_steps=20)
    dvc, trainer = started(copied)
    dvc.kill()
    dvc.wait()
    trainer.wait(timeout=20)
    kept = states(copied)
    assert kept
    dvc, trainer = started(copied)
    assert int(states(copied)[-1].stem[5:]) > int(kept[-1].stem[5:])
    trainer.terminate()
    dvc.communicate(timeout=60)
    assert dvc.returncode == 255


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_goes_on_in_another_one(copied: Workspace) -> None:
    """Its state lies in the person's workspace, not in the folder that DVC makes and deletes."""
    experiment = ("dvc", "exp", "run", "--temp", STAGE)
    train_for(copied, 4000, every_steps=20)
    dvc, trainer = started(copied, *experiment)
    assert Path(trainer.cwd()) != copied.root
    trainer.terminate()
    dvc.communicate(timeout=120)
    kept = states(copied)
    dvc, trainer = started(copied, *experiment)
    assert int(states(copied)[-1].stem[5:]) > int(kept[-1].stem[5:])
    trainer.terminate()
    dvc.communicate(timeout=120)


def test_a_training_that_diverges_says_where_and_writes_no_weights(copied: Workspace) -> None:
    train_for(copied, 40, every_steps=1)
    params = copied.params()
    params["models"]["vp"]["training"] |= {
        "learning_rate": 1e30,
        "warmup_steps": 0,
        "schedule": "constant",
    }
    copied.write_params(params)
    (copied.root / WEIGHTS).unlink()
    said = copied.python("-m", "tasks.train", "digits", "vp", "0", status=2)
    line = re.search(
        r"error: non-finite (?:loss|gradient) of step (\d+).*, learning rate 1e\+30, found after",
        said,
    )
    assert line is not None, said
    assert not (copied.root / WEIGHTS).exists()
    assert states(copied)[-1].stem == f"step-{int(line[1]) - 1:010}"


@pytest.mark.parametrize("moment", ["in the middle of the file", "before it has its name"])
def test_a_kill_during_a_checkpoint_s_write_leaves_the_one_before(
    copied: Workspace, moment: str
) -> None:
    train_for(copied, 60, every_steps=10)
    copied.python("-m", "tasks.train", "digits", "vp", "0")
    whole = digest(copied)
    (copied.root / WEIGHTS).unlink()
    fault = (
        "import os, signal, sys\n"
        "from tasks.train import main\n"
        "real, calls = os.fsync, []\n"
        "def fsync(number):\n"
        "    real(number)\n"
        "    path = os.readlink(f'/proc/self/fd/{number}')\n"
        "    calls.extend([path] * ('step-' in path))\n"
        "    if len(calls) == 3:\n"
        "        if sys.argv[1] == 'in the middle of the file':\n"
        "            os.truncate(path, os.path.getsize(path) // 2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.fsync = fsync\n"
        "main(['digits', 'vp', '0'])\n"
    )
    copied.python("-c", fault, moment, status=-signal.SIGKILL)
    assert [path.stem for path in states(copied)] == ["step-0000000010", "step-0000000020"]
    copied.dvc("repro", "--single-item", STAGE)
    assert digest(copied) == whole


def test_another_run_does_not_go_on_from_this_one_s_state(copied: Workspace) -> None:
    train_for(copied, 4000, every_steps=20)
    dvc, trainer = started(copied)
    trainer.kill()
    dvc.communicate(timeout=60)
    (folder,) = {path.parent for path in states(copied)}
    train_for(copied, 40, every_steps=20)
    said = copied.dvc("repro", "--single-item", STAGE)
    assert "goes on from" not in said
    assert {path.parent for path in states(copied)} == {folder}


# Runs a stage whose parts are counted; asked to stop (or killed) after some of them.
COUNTED = """
import os, signal, sys
from scoremodel import checkpoint
import tasks.extraction, tasks.features, tasks.sample
stage, number, after, *arguments = sys.argv[1:]
tasks.extraction._CHUNK = 32
real, made = checkpoint.Chunks._write, []
def write(self, name, tensors, content):
    real(self, name, tensors, content)
    made.append(name)
    if len(made) == int(after):
        os.kill(os.getpid(), int(number))
checkpoint.Chunks._write = write
from tasks.stage import run
sys.argv[1:] = arguments
try:
    run(getattr(tasks, stage).main)
finally:
    print("made", len(made), flush=True)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.parametrize(("stage", "folder"), [("sample", "samples"), ("features", "features")])
def test_sampling_and_features_go_on_by_finished_chunk(
    copied: Workspace, stage: str, folder: str, number: int, status: int
) -> None:
    params = copied.params()
    params["evaluation"]["batch_size"] = 32  # of 100: four chunks for each of three seeds
    copied.write_params(params)
    made = copied.root / f"artifacts/{folder}/digits-vp-0-heun.npz"
    arguments = (stage, str(int(number)), "5", "digits", "vp", "0", "heun")
    copied.python("-c", COUNTED, stage, "0", "99", *arguments[3:])
    whole = made.read_bytes()
    made.unlink()
    said = copied.python("-c", COUNTED, *arguments, status=status)
    if number == signal.SIGTERM:
        assert "stopped after seed" in said
        assert "the same command goes on from there" in said
    assert not made.exists()
    shutil.copytree(copied.root / ".scoremodel", copied.root / "kept")
    assert "made 7" in copied.python("-c", COUNTED, stage, "0", "99", *arguments[3:])
    assert made.read_bytes() == whole
    assert list((copied.root / ".scoremodel/state").glob(f"{folder}-*/*")) == []
    if number == signal.SIGKILL:  # after an edit it is other work, which begins at its first part
        shutil.copytree(copied.root / "kept", copied.root / ".scoremodel", dirs_exist_ok=True)
        with (copied.root / f"tasks/{stage}.py").open("a") as code:
            code.write("# edited\n")
        assert "made 12" in copied.python("-c", COUNTED, stage, "0", "99", *arguments[3:])


@pytest.mark.parametrize("trouble", ["full", pytest.param("read-only", marks=pytest.mark.slow)])
def test_a_state_folder_that_cannot_be_written_gets_one_line_and_keeps_what_is_good(
    copied: Workspace, trouble: str
) -> None:
    """A real file system of a few blocks, or one that is read-only, mounted for the run alone."""
    mount = "mount -t tmpfs -o size=64m none .scoremodel/state"
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).returncode:
        pytest.skip("no file system can be mounted here")
    train_for(copied, 40, every_steps=8)
    train = f"{sys.executable} -m tasks.train digits vp 0"
    copied.run("sh", "-c", train)
    whole = digest(copied)
    (copied.root / WEIGHTS).unlink()
    if trouble == "read-only":
        break_it, mend_it = "mount -o remount,ro none .scoremodel/state", "mount -o remount,rw none"
    else:
        # What two checkpoints take, and half a third.
        break_it = (
            "used=$(du -sk .scoremodel/state | cut -f1);"
            "mount -o remount,size=$((used + 4))k none .scoremodel/state"
        )
        mend_it = "mount -o remount,size=64m none"
    script = f"""
        {mount}
        {sys.executable} -c '{STOP_AFTER_TWO}' ; echo first $?
        {break_it}
        ls .scoremodel/state/*/ ; {train} ; echo second $?
        ls .scoremodel/state/*/ ; ls {WEIGHTS}
        {mend_it} .scoremodel/state && {train} ; echo third $?
    """
    done = copied.run("unshare", "-rm", "sh", "-c", script)
    _, second, third = re.split(r"first 143|second 2", done.stdout)
    line = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    reason = "Read-only file system" if trouble == "read-only" else "No space left on device"
    assert reason in line
    assert ".scoremodel/state/digits-vp-0-" in line
    for part in (second, third):
        for step in (16, 17):
            assert f"step-00000000{step}.safetensors" in part
    assert "third 0" in third
    assert digest(copied) == whole


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(copied: Workspace) -> None:
    train_for(copied, 3000, every_steps=7)
    copied.dvc("repro", "--single-item", STAGE)
    whole = digest(copied)
    copied.run("git", "checkout", "--", "params.yaml")
    train_for(copied, 3000, every_steps=7)
    (copied.root / WEIGHTS).unlink()
    copied.run("rm", "-rf", ".dvc/cache", "dvc.lock")
    copied.dvc("repro", "prepare@digits")
    draw = random.Random(0)
    for _ in range(20):
        dvc, trainer = started(copied)
        time.sleep(draw.uniform(0, 0.4))
        trainer.kill()
        dvc.communicate(timeout=60)
        assert dvc.returncode == 255
        assert not (copied.root / WEIGHTS).exists()
    copied.dvc("repro", "--single-item", STAGE)
    assert digest(copied) == whole
    assert states(copied) == []
