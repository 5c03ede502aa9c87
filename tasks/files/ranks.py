"""One stage on several processes: of this machine, or of several on which torchrun started it.

How many they are is no input of any stage: it changes the time, never the bytes (`scoremodel.ranks`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    start_processes,
)

from scoremodel.ranks import LostRankError, Ranks, joined
from tasks.files.device import Machine
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import die_with_parent, in_one_line
from tasks.files.state import stop_on_signals

__all__ = ["on_ranks", "processes", "with_helpers"]

_Main = Callable[[Configuration, Ranks], None]
_Helped = Callable[[Configuration, bool], None]

_LOST = 75  # sysexits.h's EX_TEMPFAIL: the status of a process that has lost another one
_MANY = 2**10  # parts, of work that is not split into a number of them
_GRACE = 20.0  # seconds that processes have to end by themselves once one has failed


def processes(parts: int) -> int:
    """Return in how many processes a stage is to run, from what `check` resolved.

    Args:
        parts: the equal parts of its work, a power of two.

    Returns:
        A power of two that divides the parts: what is said, or one for each GPU, or on the CPU as many as
        have their threads within the stage's cores.
    """
    keeping, machine = resolved("keeping"), Machine.read()
    wanted = keeping["processes"]
    if wanted == "auto":
        wanted = keeping["cores"] // machine.threads
        if machine.device in ("auto", "cuda") and torch.cuda.is_available():
            wanted = torch.cuda.device_count()
        elif machine.device not in ("auto", "cpu"):
            wanted = 1
    most = min(max(1, int(wanted)), parts)
    return 1 << (most.bit_length() - 1)


def on_ranks(main: _Main, parts: Callable[[Configuration], int]) -> Callable[[Configuration], None]:
    """Return a stage's main function that runs `main` in several processes at once.

    Args:
        main: does the work, in each process.
        parts: the equal parts of its work, a power of two.

    Returns:
        A function for `run_stage`. It ends as `main` does: what one process says is said once, what stops
        one stops all, and when one is killed all end, with its status.
    """

    def act(configuration: Configuration) -> None:
        if "RANK" in os.environ:
            rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            _act(rank, world_size, None, main, configuration)
            return
        count = processes(parts(configuration))
        if count == 1:
            main(configuration, Ranks())
            return
        with tempfile.TemporaryDirectory(prefix="scoremodel-") as folder:
            _launch(count, Path(folder, "meeting"), main, configuration)

    return act


def with_helpers(main: _Helped) -> _Helped:
    """Return a stage's main function that has other processes help `main`.

    Args:
        main: does the work of a configuration in `Chunks`; of a helper, which is the second argument, it
            ends once there is none left that nobody is at work on.

    Returns:
        A function for `run_stage(…, helped=True)`. A helper that is killed leaves its part to the others.
    """

    def act(configuration: Configuration, helps: bool) -> None:
        helpers = processes(_MANY) - 1
        if helpers == 0:
            main(configuration, helps)
            return
        started = _start(_help, (main, configuration), helpers)
        try:
            main(configuration, helps)
        finally:
            for process in started.processes:
                process.terminate()
            _end(started, _GRACE)

    return act


def _start(act: Callable[..., None], arguments: tuple[object, ...], count: int) -> ProcessContext:
    # A fork has all modules at once; CUDA does not survive one.
    machine = Machine.read()
    forks = sys.platform == "linux" and not (machine.device != "cpu" and torch.cuda.is_available())
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    started: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        act, arguments, count, join=False, start_method="fork" if forks else "spawn"
    )
    return started


def _end(started: ProcessContext, grace: float) -> None:
    """Kill what has not ended by itself within some seconds."""
    by = time.monotonic() + grace
    for process in started.processes:
        process.join(max(0.0, by - time.monotonic()))
        process.kill()


def _launch(count: int, meeting: Path, main: _Main, configuration: Configuration) -> None:
    with stop_on_signals() as stop:
        started = _start(_rank, (count, meeting, main, configuration), count)
        told = False
        try:
            while not started.join(0.2, _GRACE):
                if stop() and not told:
                    told = True
                    for process in started.processes:
                        process.terminate()
        except ProcessExitedException:
            raise SystemExit(_status([process.exitcode for process in started.processes])) from None
        finally:
            _end(started, 0)


def _status(codes: list[int]) -> int:
    """Return the status that a stage ends with, from its processes', and say which one was killed."""
    own = [(rank, code) for rank, code in enumerate(codes) if code not in (0, _LOST)]
    if not own:
        print("error: the processes have lost each other", file=sys.stderr)
        return _LOST
    rank, code = max(own, key=lambda one: one[1] < 0)
    if code >= 0:
        return code
    print(
        f"error: process {rank} of {len(codes)} was ended by {signal.Signals(-code).name}; the same "
        "command goes on from what is saved",
        file=sys.stderr,
    )
    return 128 - code


def _begin(number: int) -> None:
    """Be one of the processes that this module starts, with a GPU of its own where there are several."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has its parent's answers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    os.environ["LOCAL_RANK"] = str(number)


def _rank(
    rank: int, world_size: int, meeting: Path, main: _Main, configuration: Configuration
) -> None:
    _begin(rank)
    with in_one_line(silent=rank > 0):
        _act(rank, world_size, meeting, main, configuration)


def _help(number: int, main: _Helped, configuration: Configuration) -> None:
    """Be a helper, which says nothing: what is wrong, the process that it helps says too."""
    _begin(number + 1)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    with in_one_line(silent=True):
        main(configuration, True)


def _act(
    rank: int, world_size: int, meeting: Path | None, main: _Main, configuration: Configuration
) -> None:
    if rank:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        with joined(rank, world_size, meeting) as ranks:
            main(configuration, ranks)
    except LostRankError:
        raise SystemExit(_LOST) from None
