"""DVC as a child process: its lines as they come, a deadline, and no orphan left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tasks.files.addresses import cleaned

__all__ = [
    "Child",
    "DvcFailedError",
    "StageKilledError",
    "StoppedError",
    "failure",
    "leashed",
    "mend_claims",
    "persist",
    "run_dvc",
    "run_helper",
]

Say = Callable[[str], None]

_LEASH = str(Path(__file__).with_name("leash.py"))
_BUSY = re.compile(r"'(?P<path>[^']*)' is busy, it is being blocked by:")
_BLOCKER = re.compile(r"^\s*\(PID (?P<pid>\d+)\): (?P<command>.*)$")
_AT_WORK = "another process is at work on this run"
_RESTORED = re.compile(r"(?:Stage|Pulling data for stage:) '(.+?)'(?: is cached|$)")
_EXITED = re.compile(r"exited with (-?\d+)")
_HINTS = re.compile(  # what DVC adds to every success
    r"To track the changes with git, run:|\s*git add |To enable auto staging, run:|"
    r"\s*dvc config core.autostage true|Use `dvc push` to send your updates"
)
_KEPT = 60  # lines of what DVC said last
_TRIES = 4  # of what talks to the DVC remote
_SECONDS = 2.0  # before the second try; doubled before each further one
_PATIENCE = 2.0  # seconds between two looks at somebody else's work


class DvcFailedError(RuntimeError):
    """DVC ended with an error; its own lines are in the log."""


class StageKilledError(DvcFailedError):
    """A stage's process was killed from outside: the same command goes on where it was."""


class StoppedError(RuntimeError):
    """The run that asked for it has ended or was cancelled."""

    def __init__(self, message: str = "stopped, as the run that asked for it has ended") -> None:
        super().__init__(message)


class Child:
    """What DVC did with the stages it was asked for, by its own lines."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.restored: list[str] = []

    def note(self, line: str) -> None:
        """Take note of a line of DVC's."""
        if found := re.match(r"Running stage '(.+)':", line):
            self.ran.append(found[1])
        elif found := _RESTORED.match(line):
            self.restored.append(found[1])

    def outcome(self, stage: str) -> str:
        """Return "ran", "restored" (from a cache or a remote) or "up to date"."""
        if stage in self.ran:
            return "ran"
        return "restored" if stage in self.restored else "up to date"


def run_dvc(
    arguments: Sequence[str],
    folder: Path,
    say: Say,
    *,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    environment: dict[str, str] | None = None,
    watch: Say = lambda _: None,
) -> Child:
    """Run one command of DVC; wait for whoever is at work on the same files, and say for whom.

    Args:
        arguments: the command, such as ["repro", "--single-item", "train@digits-ve-0"].
        folder: the workspace.
        say: takes the lines for people.
        stop: ends the command when it is set.
        timeout: seconds after which the command is ended.
        environment: variables to add.
        watch: takes every line, before `say`.

    Returns:
        What DVC did.

    Raises:
        StageKilledError: if a stage's process was killed from outside.
        StoppedError: if `stop` was set.
        DvcFailedError: if the deadline passed, or for any other failure, with DVC's or the stage's
            own line.
    """
    stop = stop or threading.Event()
    deadline = None if timeout is None else time.monotonic() + timeout
    waited = False
    mend_claims(folder, say)
    while True:
        # --wait-for-lock: without it a stage that ends while another holds the lock fails after its work.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
        child, lines, status = _once(command, folder, say, stop, deadline, environment or {}, watch)
        if stop.is_set():
            raise StoppedError
        if deadline is not None and time.monotonic() >= deadline and status:
            raise DvcFailedError(f"stopped after its deadline of {timeout:g} s")
        if status == 0:
            return child
        blockers = [found for line in lines if (found := _BLOCKER.match(line))]
        if any(_BUSY.search(line) for line in lines) and blockers:
            _wait_for(blockers, lines, say, stop, deadline)
        elif any(_AT_WORK in line for line in lines):
            if not waited:
                say("waits for the process that is at work on the same training or sampling")
                waited = True
            stop.wait(_PATIENCE)
        else:
            raise failure(lines, status)


def run_helper(
    command: str, folder: Path, say: Say, stop: threading.Event, environment: dict[str, str]
) -> None:
    """Have a stage's command help the process that runs the stage, without DVC: it has no outputs.

    Args:
        command: the stage's, in dvc.yaml.
        folder: the workspace.
        say: takes the lines for people.
        stop: ends it when it is set.
        environment: variables to add.

    Raises:
        StoppedError: if `stop` was set.
        DvcFailedError: with its own line, if it fails.
    """
    helping = ["/bin/sh", "-c", f"{command} --helps"]
    _, lines, status = _once(helping, folder, say, stop, None, environment, lambda _: None)
    if stop.is_set():
        raise StoppedError
    if status:
        raise failure(lines, status)


def persist(what: str, arguments: list[str], root: Path, say: Say, stop: threading.Event) -> None:
    """Run a command that talks to the DVC remote; try again if that fails.

    Args:
        what: what it does, for people.
        arguments: the command.
        root: the workspace.
        say: takes the lines for people.
        stop: ends it when it is set.

    Raises:
        DvcFailedError: after the last try, with what DVC said.
        StoppedError: if `stop` was set.
    """
    for attempt in range(_TRIES):
        try:
            run_dvc(arguments, root, say, stop=stop)
        except DvcFailedError as error:
            if attempt + 1 == _TRIES:
                raise DvcFailedError(
                    f"{what} failed {_TRIES} times, the last one with: {error}; what is finished is "
                    "in DVC's cache, and the next run goes on from there"
                ) from None
            say(f"{what} failed ({error}), tries again")
            if stop.wait(_SECONDS * 2**attempt):
                raise StoppedError from None
        else:
            return


def leashed(command: Sequence[str]) -> list[str]:
    """Return a command that does the same, and is stopped when this process dies."""
    return [sys.executable, _LEASH, str(os.getpid()), *command]


def mend_claims(folder: Path, say: Say) -> None:
    """Put away the list of what DVC's processes are at work on, if one was killed while writing it.

    DVC refuses to do anything beside such a list, and nobody's claims can be read in it any more.

    Args:
        folder: the workspace.
        say: is told about it.
    """
    claims = folder / ".dvc/tmp/rwlock"
    if _readable(claims):
        return
    from dvc.config import Config
    from dvc.lock import LockError, make_lock

    hardlink = Config(str(folder / ".dvc"))["core"].get("hardlink_lock", False)
    guard = make_lock(f"{claims}.lock", str(claims.parent), hardlink_lock=hardlink)
    with suppress(LockError), guard:  # who holds it is DVC in the middle of writing
        if not _readable(claims):
            claims.unlink()
            say(f"removed {claims}, which an interrupted DVC has left unreadable")


def _readable(claims: Path) -> bool:
    try:
        return isinstance(json.loads(claims.read_bytes()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def _once(
    command: Sequence[str],
    folder: Path,
    say: Say,
    stop: threading.Event,
    deadline: float | None,
    environment: dict[str, str],
    watch: Say,
) -> tuple[Child, list[str], int]:
    process = subprocess.Popen(
        leashed(command),
        cwd=folder,
        env=_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C is for who reads this: DVC and a stage that get one each stop without a last word.
        start_new_session=True,
    )
    ended = threading.Event()

    def guard() -> None:
        while not ended.wait(0.2):
            if stop.is_set() or (deadline is not None and time.monotonic() >= deadline):
                _end(process)
                return

    threading.Thread(target=guard, daemon=True).start()
    child, lines = Child(), deque[str](maxlen=_KEPT)
    try:
        for line in _lines(process):
            watch(line)
            child.note(line)
            lines.append(line)
            if not _HINTS.match(line):
                say(line)
        status = process.wait()
    finally:
        ended.set()
        if process.poll() is None:
            _end(process)
    return child, list(lines), status


def _environment() -> dict[str, str]:
    """Return the child's environment: this Python first on PATH, nothing of this flow run's own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
    # What names the workspace of an outer DVC would send a stage's unfinished work there.
    env = {key: value for key, value in env.items() if key not in ("DVC_ROOT", "DVC_STAGE")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env.setdefault("TQDM_MININTERVAL", "5")  # a progress bar is a log line here
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:  # universal newlines: a progress bar's "\r" ends a line too
        if line.strip():
            yield cleaned(line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    """End DVC with all that it started: DVC alone would leave the stage's command running."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(family, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    if family:
        # DVC ends with its stage. Ended while it writes down what it lets go of, it leaves garbage.
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
    process.terminate()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(
    blockers: list[re.Match[str]],
    lines: list[str],
    say: Say,
    stop: threading.Event,
    deadline: float | None,
) -> None:
    path = next(found["path"] for line in lines if (found := _BUSY.search(line)))
    for blocker in blockers:
        pid = int(blocker["pid"])
        say(f"waits for process {pid} ({blocker['command']}), which is at work on {path}")
        while _alive(pid) and not stop.is_set():
            if deadline is not None and time.monotonic() >= deadline:
                return
            stop.wait(0.5)
    # It may still be letting go of its locks, or be in the middle of several stages.
    stop.wait(0.5)


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def failure(lines: list[str], status: int) -> DvcFailedError:
    """Return the error whose line says most: the stage's own, then DVC's, then the status.

    Args:
        lines: what DVC said last.
        status: its exit status, −N if signal N ended it.

    Returns:
        A `StageKilledError` if the same command would go on where it was.
    """
    for line in lines:
        # A shell between DVC and the stage says 128 + the signal's number.
        code = int(found[1]) if (found := _EXITED.search(line)) else 0
        if code < 0 or 128 < code <= 128 + signal.NSIG:
            return StageKilledError(
                f"its process was killed by signal {code % 128 if code > 0 else -code}"
            )
    if status < 0:
        return StageKilledError(f"DVC's process was killed by signal {-status}")
    stages = [line for line in lines if line.startswith("error:")]
    own = [line for line in lines if line.startswith("ERROR:")]
    said = (stages or own or [f"dvc ended with status {status}"])[-1]
    return DvcFailedError(said)
