"""What every stage does first and last: read its arguments, and say errors in one line."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence

from tasks.layout import Configuration
from tasks.params import Params, ParamsError, load_params

__all__ = ["parse_configuration", "parse_dataset", "run"]

_PR_SET_PDEATHSIG = 1


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a stage; a mistake of the user's prints its line to standard error and exits with 2.

    A stage that was asked to stop exits with 143, the status of a process ended by SIGTERM.
    """
    _die_with_dvc()
    try:
        main(sys.argv[1:])
    except InterruptedError as error:
        print(error, file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None
    except (ParamsError, ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


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


def parse_dataset(arguments: Sequence[str]) -> tuple[str, Params]:
    """Return the data set's name that the command line gives, and the parameters."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    given = parser.parse_args(arguments)
    params = load_params()
    _require("datasets", given.dataset, params.datasets)
    return given.dataset, params


def parse_configuration(
    arguments: Sequence[str], sampler: bool = True
) -> tuple[Configuration, Params]:
    """Return the configuration that the command line gives, and the parameters.

    Args:
        arguments: data set, model, training seed and, if `sampler`, sampler.
        sampler: whether the stage works for one sampler.

    Returns:
        The configuration and all parameters.

    Raises:
        ParamsError: if the parameters are wrong or lack one of the names.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("model")
    parser.add_argument("train_seed", type=int)
    if sampler:
        parser.add_argument("sampler")
    given = parser.parse_args(arguments)
    params = load_params()
    _require("datasets", given.dataset, params.datasets)
    _require("models", given.model, params.models)
    if sampler:
        _require("samplers", given.sampler, params.samplers)
    return Configuration(**vars(given)), params


def _require(block: str, name: str, defined: dict[str, object] | object) -> None:
    if isinstance(defined, dict) and name not in defined:
        raise ParamsError(
            f"params.yaml: {block}: has no {name!r}, allowed: {', '.join(sorted(defined))}"
        )
