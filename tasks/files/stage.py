"""What every stage does first and last: know what it is of, refuse other code, say errors in one line."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from tasks.files.code import closure
from tasks.files.layout import AXES, Configuration
from tasks.files.resolved import resolved, resolved_path
from tasks.files.terminal import as_command
from tasks.params.errors import ParamsError

__all__ = [
    "as_stage",
    "code_of",
    "die_with_parent",
    "in_one_line",
    "run",
    "run_stage",
    "stage_name",
]

_PR_SET_PDEATHSIG = 1
_acted: ContextVar[str] = ContextVar("stage that another command acts")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command, whose mistakes are said as `in_one_line` says them.

    Args:
        main: takes the command's arguments.
    """
    if "DVC_STAGE" in os.environ:  # one that outlives its DVC is an orphan beside the next one's
        die_with_parent()
    with as_command(), in_one_line():
        main(sys.argv[1:])


@contextmanager
def in_one_line(silent: bool = False) -> Iterator[None]:
    """Turn a mistake of the user's into its line on standard error and the status 2.

    What was asked to stop exits with 143, the status of a process ended by SIGTERM.

    Args:
        silent: whether to say nothing, of what another process says too.

    Yields:
        Nothing.

    Raises:
        SystemExit: with the status.
    """
    status = 2
    try:
        yield
        return
    except InterruptedError as error:
        status, line = 128 + signal.SIGTERM, str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        line = f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}"
    except (ParamsError, ValueError, FloatingPointError) as error:
        line = f"error: {error}"
    if not silent:
        print(line, file=sys.stderr)
    raise SystemExit(status)


def run_stage(main: Callable[..., None], *axes: str, helped: bool = False) -> None:
    """Run one stage, if its code is what `check` saw.

    Args:
        main: does the work for one configuration.
        *axes: what its runs differ by, in the order of the command: some of `layout.AXES`. `check`
            reads them from the stage's source, so they are written out there.
        helped: whether `main` takes a second argument, the command's `--helps`.
    """

    def act(arguments: Sequence[str]) -> None:
        parser = argparse.ArgumentParser()
        for axis in axes:
            assert axis in AXES
            parser.add_argument(axis, type=int if axis == "train_seed" else str)
        if helped:
            parser.add_argument(
                "--helps",
                action="store_true",
                help="do what nobody is at work on, for another machine that has the same "
                "checkpoints.folder; write no output",
            )
        given = vars(parser.parse_args(arguments))
        rest = [given.pop("helps")] if helped else []
        configuration = Configuration(**given)
        code_of(configuration)
        main(configuration, *rest)

    run(act)


@contextmanager
def as_stage(name: str) -> Iterator[None]:
    """Be a stage for a while, in a command that runs several of them in one process.

    Args:
        name: the stage's.

    Yields:
        Nothing.
    """
    token = _acted.set(name)
    try:
        yield
    finally:
        _acted.reset(token)


def stage_name() -> str:
    """Return the name of the stage that runs: the last part of `tasks.NAME`."""
    if acted := _acted.get(""):
        return acted
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return str(spec.name).removeprefix("tasks.").split(".")[0] if spec else ""


def code_of(configuration: Configuration) -> dict[str, Any]:
    """Return the modules that the running stage is made of, each by its hash.

    Args:
        configuration: what it is of.

    Returns:
        Path → hash, as `check` wrote it down.

    Raises:
        ValueError: if the code has changed since.
    """
    return _code_of(stage_name(), configuration)


@cache
def _code_of(stage: str, configuration: Configuration) -> dict[str, Any]:
    name = f"code/{stage}" + (f"@{configuration.name}" if configuration.name else "")
    said = resolved(name)
    modules: dict[str, str] = said["modules"]
    now = closure(said["entry"], said["kinds"]).modules
    if now != modules:
        different = sorted(
            path for path in now.keys() | modules.keys() if now.get(path) != modules.get(path)
        )
        raise ValueError(
            f"{resolved_path(name)}: is of other code than {stage} is now ({', '.join(different)}); "
            "run dvc repro, whose stage check comes first"
        )
    return modules


def die_with_parent() -> None:
    """Ask Linux for a SIGTERM when the process that started this one dies.

    The commands in dvc.yaml start with `exec`, so that no shell stands between a stage and its DVC.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it was asked
        raise SystemExit(128 + signal.SIGTERM)
