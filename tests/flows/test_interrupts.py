"""Ctrl-C and kills of a flow with its own Prefect server, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from dvc.lock import make_lock

from tasks.files.dvc import mend_claims
from tests import shared
from tests.flows.conftest import TRAIN, until
from tests.workspace import Workspace

MARK = "SCOREMODEL_TEST_MARK"


class Terminal:
    """A person's terminal, in whose workspace there is a training that takes minutes."""

    def __init__(self, workspace: Workspace, folder: Path, home: Path) -> None:
        self.workspace, self.home = workspace, home
        self.log = folder / "log"
        self.mark = uuid.uuid4().hex

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command as the terminal's foreground process group."""
        # Ignored in a job in a shell's background, it would be in what such a job starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.workspace.root,
                env=self.workspace.environment()
                | {MARK: self.mark, "PREFECT_HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def at_work(self) -> subprocess.Popen[bytes]:
        """Start the flow, and return it once its training has made a checkpoint."""
        flow = self.start("flows.pipeline", "train")

        def working() -> bool:
            assert flow.poll() is None, self.log.read_text()
            return bool(self.steps())

        until(working)
        return flow

    def family(self) -> list[psutil.Process]:
        """Return all processes that were started from here, whatever session they are in."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint."""
        state = self.workspace.root / ".scoremodel/state"
        return sorted(int(path.stem[5:]) for path in state.glob("*/step-*.safetensors"))

    def said(self) -> list[str]:
        """Return the lines in the terminal."""
        return self.log.read_text().splitlines()


@pytest.fixture
def terminal(
    untrained: Workspace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """Return a terminal; what is started in it ends with the test."""
    workspace = shared.copy(untrained, tmp_path, warm=False)
    shared.train_for(workspace, 1_000_000, every_steps=100)
    made = Terminal(workspace, tmp_path, tmp_path_factory.getbasetemp() / "prefect")
    yield made
    for process in made.family():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def ends(
    flow: subprocess.Popen[bytes], interrupt: Callable[[], None], terminal: Terminal, status: int
) -> None:
    """Assert that the flow ends soon, with its own last line, all of its processes and a saved state."""
    before = terminal.steps()[-1]
    began = time.monotonic()
    interrupt()
    code = flow.wait(timeout=60)
    print(f"ended after {time.monotonic() - began:.1f} s")  # two, with nothing else to do
    assert code == status, terminal.said()
    assert terminal.said()[-1].startswith("error: interrupted; the same command goes on")
    assert terminal.family() == []
    assert any("stopped after step" in line for line in terminal.said())
    assert terminal.steps()[-1] > before


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 5])
def test_ctrl_c_ends_a_flow_and_saves_the_training(terminal: Terminal, times: int) -> None:
    flow = terminal.at_work()

    def interrupt() -> None:
        for _ in range(times):
            os.killpg(flow.pid, signal.SIGINT)
            time.sleep(0.06)

    ends(flow, interrupt, terminal, 128 + signal.SIGINT)
    # The workspace is one in which DVC runs.
    terminal.workspace.dvc("repro", "--single-item", "check")
    terminal.workspace.dvc("status", TRAIN)


@pytest.mark.slow
def test_sigterm_ends_a_flow_as_ctrl_c_does(terminal: Terminal) -> None:
    flow = terminal.at_work()
    ends(flow, flow.terminate, terminal, 128 + signal.SIGTERM)


@pytest.mark.slow
def test_a_killed_flow_leaves_no_process_behind(terminal: Terminal) -> None:
    flow = terminal.at_work()
    commands = [" ".join(process.cmdline()) for process in terminal.family()]
    for part in ("uvicorn", " dvc ", "tasks.train"):
        assert any(part in command for command in commands)
    flow.kill()
    assert flow.wait(timeout=60) == -signal.SIGKILL
    until(lambda: not terminal.family(), 60)


@pytest.mark.slow
def test_ctrl_c_before_the_flow_has_begun_ends_its_server_too(terminal: Terminal) -> None:
    flow = terminal.start("flows.pipeline", "train")
    until(lambda: len(terminal.family()) > 1)  # the server, which takes seconds to answer
    os.killpg(flow.pid, signal.SIGINT)
    assert flow.wait(timeout=60) == 128 + signal.SIGINT, terminal.said()
    assert terminal.said()[-1].startswith("error: interrupted")
    until(lambda: not terminal.family(), 60)


@pytest.mark.parametrize("left", ["", '{"write": {"a', "[]", None])
def test_what_an_interrupted_dvc_has_left_is_put_right(tmp_path: Path, left: str | None) -> None:
    claims = tmp_path / ".dvc/tmp/rwlock"
    claims.parent.mkdir(parents=True)
    if left is not None:
        claims.write_text(left)
    said: list[str] = []
    mend_claims(tmp_path, said.append)
    assert not claims.exists()
    assert len(said) == (left is not None)


def test_claims_that_can_be_read_stay_and_so_do_those_being_written(tmp_path: Path) -> None:
    claims = tmp_path / ".dvc/tmp/rwlock"
    claims.parent.mkdir(parents=True)
    said: list[str] = []
    claims.write_text('{"write": {}}')
    mend_claims(tmp_path, said.append)
    assert claims.read_text() == '{"write": {}}'
    claims.write_text("")
    with make_lock(f"{claims}.lock"):  # as DVC does
        mend_claims(tmp_path, said.append)
    assert claims.exists()
    assert said == []
