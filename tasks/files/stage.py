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

__all__ = ["as_stage", "code_of", "run", "run_stage", "stage_name"]

_PR_SET_PDEATHSIG = 1
_acted: ContextVar[str] = ContextVar("stage that another command acts")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command; a mistake of the user's prints its line to standard error and exits with 2.

    What was asked to stop exits with 143, the status of a process ended by SIGTERM.

    Args:
        main: takes the command's arguments.
    """
    _die_with_dvc()
    with as_command():
        try:
            main(sys.argv[1:])
        except InterruptedError as error:
            print(error, file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else error
            print(f"error: {said}", file=sys.stderr)
            raise SystemExit(2) from None
        except (ParamsError, ValueError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def run_stage(main: Callable[[Configuration], None], *axes: str) -> None:
    """Run one stage, if its code is what `check` saw.

    Args:
        main: does the work for one configuration.
        *axes: what its runs differ by, in the order of the command: some of `layout.AXES`. `check`
            reads them from the stage's source, so they are written out there.
    """

    def act(arguments: Sequence[str]) -> None:
        parser = argparse.ArgumentParser()
        for axis in axes:
            assert axis in AXES
            parser.add_argument(axis, type=int if axis == "train_seed" else str)
        configuration = Configuration(**vars(parser.parse_args(arguments)))
        code_of(configuration)
        main(configuration)

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


def _die_with_dvc() -> None:
    """Ask Linux for a SIGTERM when the process that started this stage dies, if that is DVC.

    A stage that outlives its DVC is an orphan beside which the next `dvc repro` starts another. The
    commands in dvc.yaml start with `exec`, so that no shell stands between the two.
    """
    if "DVC_STAGE" not in os.environ or not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it was asked
        raise SystemExit(128 + signal.SIGTERM)
