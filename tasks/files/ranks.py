"""One stage on several processes: of this machine, or of several on which torchrun started it.

How many they are is no input of any stage: it changes the time, never the bytes (`scoremodel.ranks`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
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

__all__ = ["Main", "on_ranks", "processes"]

Main = Callable[[Configuration, Ranks], None]

_LOST = 75  # sysexits.h's EX_TEMPFAIL: the status of a process that has lost another one
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


def on_ranks(main: Main, parts: Callable[[Configuration], int]) -> Callable[[Configuration], None]:
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


def _launch(count: int, meeting: Path, main: Main, configuration: Configuration) -> None:
    # A fork has all modules at once; CUDA does not survive one.
    machine = Machine.read()
    forks = sys.platform == "linux" and not (machine.device != "cpu" and torch.cuda.is_available())
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with stop_on_signals() as stop:
        started: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
            _rank,
            (count, meeting, main, configuration),
            count,
            join=False,
            start_method="fork" if forks else "spawn",
        )
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
            for process in started.processes:
                process.kill()


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


def _rank(
    rank: int, world_size: int, meeting: Path, main: Main, configuration: Configuration
) -> None:
    """Be one process of those that this module starts."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a fork has its parent's answers
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    os.environ["LOCAL_RANK"] = str(rank)
    with in_one_line(silent=rank > 0):
        _act(rank, world_size, meeting, main, configuration)


def _act(
    rank: int, world_size: int, meeting: Path | None, main: Main, configuration: Configuration
) -> None:
    if rank:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        with joined(rank, world_size, meeting) as ranks:
            main(configuration, ranks)
    except LostRankError:
        raise SystemExit(_LOST) from None
