"""Stage check: all of `params.yaml` is valid, every active source is there → what stages depend on."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from scoremodel.data.exchange import ARRAY_FILES
from scoremodel.data.sources.folder import first_image
from scoremodel.processes.base import Process, process_from_config
from scoremodel.processes.ncsn import NCSN
from tasks.files.git import GitError, git
from tasks.files.hashes import require_file
from tasks.files.layout import Configuration
from tasks.files.leftovers import put_away_leftovers
from tasks.files.stage import run
from tasks.params import presets
from tasks.params.cost import NOMINAL
from tasks.params.errors import ParamsError
from tasks.params.fits import said_of
from tasks.params.load import load_params
from tasks.params.pretrained import require_pretrained
from tasks.params.resolve import resolve, write
from tasks.params.schema import Params
from tasks.params.survey import Survey
from tasks.sample import build_sampler

__all__ = ["Checked", "check", "main"]


class Checked(NamedTuple):
    """What `check` found.

    Args:
        params: all parameters.
        warnings: what may be meant, a line each.
        costs: what the active configurations will cost, a line each.
    """

    params: Params
    warnings: list[str]
    costs: list[str]


def check(nominal: float = NOMINAL) -> Checked:
    """Return the parameters after checking them.

    Args:
        nominal: TFLOP/s by which hours are said of trainings that were not measured on this machine.

    Returns:
        All parameters, with what there is to say of them: the active sources exist, the active samplers
        work with the active models, and nothing is asked of the data, as far as they are known, that
        they do not have.

    Raises:
        ParamsError: one line for each mistake.
        ValueError: if the extractor's file is not the one that it should be.
    """
    params = load_params()
    for name in params.active.datasets:
        raw = Configuration(name).raw
        if not raw.is_dir():
            raise ParamsError(
                f"params.yaml: active.datasets: {name!r} has no folder {raw}; put a source.yaml or "
                "images there (`dvc add`), or restore it (`dvc pull`)"
            )
    for name, external in product(params.active.datasets, params.active.external):
        _require_samples(Configuration(name, external))
    extractor: Any = params.evaluation.extractor
    if getattr(extractor, "path", None) and extractor.sha256:
        require_file("params.yaml: evaluation.extractor", extractor.path, extractor.sha256)
    require_pretrained(params)
    said = params.model_dump(exclude_unset=True)
    for model, sampler in product(params.active.models, params.active.samplers):
        chosen = said["samplers"][sampler]
        try:
            process = _stand_in(chosen["path"] or said["models"][model]["sde"])
            build_sampler(chosen).plan(process)
        except ValueError as error:
            raise ParamsError(
                f"params.yaml: active: sampler {sampler!r} does not work with model {model!r}: "
                f"{error}"
            ) from error
    return _surveyed(params, nominal)


def _require_samples(files: Configuration) -> None:
    """Refuse samples from elsewhere that are not there; what is in their files the stage reads."""
    folder, forms = files.given, ", ".join(ARRAY_FILES)
    try:
        there = folder.is_dir() and (
            any(path.suffix.lower() in ARRAY_FILES for path in folder.glob("[!.]*"))
            or first_image(folder)
        )
    except ValueError as error:
        raise ParamsError(f"params.yaml: active.external: {files.model!r}: {error}") from None
    if not there:
        raise ParamsError(
            f"params.yaml: active.external: {files.model!r} has no samples of {files.dataset!r} in "
            f"{folder}; put images there, or files of the kinds {forms} (`dvc add`), or restore them "
            "(`dvc pull`)"
        )


def _surveyed(params: Params, nominal: float) -> Checked:
    """Return what there is to say of parameters that are right by themselves; refuse what never is."""
    survey = Survey(params)
    found = list(dict.fromkeys(map(said_of, survey.findings(refused=True))))
    if found:
        raise ParamsError("\n".join(found))
    warnings = [said_of(one) for one in survey.findings(refused=False)]
    costs = survey.training_lines(nominal)
    for loud, line in survey.cost_lines():
        (warnings if loud else costs).append(line)
    return Checked(params, list(dict.fromkeys(warnings)), costs)


def _stand_in(config: dict[str, Any]) -> Process:
    """Return the process; for a ladder that follows from data, which are not known yet, a long one."""
    return NCSN(levels=2000) if None in config.values() else process_from_config(config)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, allowed: a number above 0")
    return rate


def say_of_git() -> str | None:
    """Return what a person should know of git's state: a detached HEAD, as a killed experiment leaves it."""
    here = Path()
    try:
        if git(here, "rev-parse", "--abbrev-ref", "HEAD").strip() != "HEAD":
            return None
        head = git(here, "rev-parse", "--short", "HEAD").strip()
    except (OSError, GitError):  # no git, no repository, or nothing committed
        return None
    branches = git(
        here, "for-each-ref", "--contains=HEAD", "--format=%(refname:short)", "refs/heads"
    )
    branch = (branches.splitlines() or ["BRANCH"])[0]
    return (
        f"git: HEAD is detached at {head}, as `dvc exp run` leaves it when it is killed: what it did "
        f"is in `dvc exp show` as far as it came; back to where you were: git switch {branch}"
    )


def main(arguments: Sequence[str]) -> None:
    """Check; with `--stage` write what all other stages depend on; with `--preset` say what there is."""
    parser = argparse.ArgumentParser(prog="python -m tasks.check", description=main.__doc__)
    parser.add_argument("--stage", action="store_true", help="as DVC's stage: write what it found")
    parser.add_argument(
        "--preset",
        nargs="?",
        const="",
        help="list the presets; with a NAME, its arguments for dvc exp run, for `xargs -0`",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=NOMINAL,
        metavar="TFLOPS",
        help=f"TFLOP/s by which hours are said of a training that was not measured here ({NOMINAL:g})",
    )
    given = parser.parse_args(arguments)
    if given.preset is not None:
        sys.stdout.write(presets.arguments(given.preset) if given.preset else presets.listing())
        return
    try:
        found = check(given.rate)
    except ParamsError as error:
        if "DVC_EXP_NAME" in os.environ:  # DVC leaves what it was told to set in the file
            raise ParamsError(f"{error}\nparams.yaml keeps that: git restore params.yaml") from None
        raise
    if given.stage:
        put_away_leftovers()
        write(resolve(found.params))
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in found.costs:
        print(f"cost: {line}")
    if given.stage:
        return
    if (note := say_of_git()) is not None:
        print(note, file=sys.stderr)
    print("params.yaml is valid")


if __name__ == "__main__":
    run(main)
