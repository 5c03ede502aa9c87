"""Stage check: all of `params.yaml` is valid, and every active source is there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from scoremodel.processes.chain import NCSN
from scoremodel.io.files import write_text
from tasks.hashes import require_file
from tasks.layout import APPLICATIONS, CHECKED, Data
from tasks.params import ClassifierExtractor, Params, ParamsError, load_params
from tasks.process import build_process
from tasks.sampler import build_sampler
from tasks.stage import run
from tasks.table import active_configurations

__all__ = ["check", "main", "put_away_leftovers"]


def check() -> Params:
    """Return the parameters after checking them.

    Returns:
        All parameters; the active sources exist, and the active samplers work with the active models.

    Raises:
        ParamsError: one line for each mistake.
        ValueError: if the extractor's file is not the one that it should be.
    """
    params = load_params()
    for name in params.active.datasets:
        raw = Data(name).raw
        if not raw.is_dir():
            raise ParamsError(
                f"params.yaml: active.datasets: {name!r} has no folder {raw}; put a source.yaml or "
                "images there (`dvc add`), or restore it (`dvc pull`)"
            )
    extractor = params.evaluation.extractor
    if not isinstance(extractor, ClassifierExtractor) and extractor.path and extractor.sha256:
        require_file("params.yaml: evaluation.extractor", extractor.path, extractor.sha256)
    for model in params.active.models:
        for sampler in params.active.samplers:
            chosen = params.samplers[sampler]
            try:
                # A ladder that follows from the data is not known yet: a long one stands in for it.
                process = build_process(chosen.path or params.models[model].sde) or NCSN(
                    levels=2000
                )
                build_sampler(chosen).plan(process)
            except ValueError as error:
                raise ParamsError(
                    f"params.yaml: active: sampler {sampler!r} does not work with model {model!r}: "
                    f"{error}"
                ) from error
    return params


def put_away_leftovers(params: Params) -> None:
    """Remove from the gathered folders what inactive configurations left there.

    The report depends on these folders as a whole, so a clone, which has no leftovers, would see
    other dependencies. DVC's cache and git keep what was made.
    """
    active = list(active_configurations(params))
    if APPLICATIONS.is_dir():
        named = {configuration.model_name for configuration in active}
        for folder in APPLICATIONS.iterdir():
            if folder.is_dir() and folder.name not in named:
                shutil.rmtree(folder)
    kept = {Data(name).grid for name in params.active.datasets}
    for configuration in active:
        kept |= {
            configuration.grid,
            configuration.curves,
            configuration.bands,
            configuration.neighbours,
            configuration.record,
        }
    for folder in {path.parent for path in kept}:
        for path in folder.glob("*.*"):
            if path not in kept and path.name != ".gitignore":
                path.unlink()


def main(arguments: Sequence[str]) -> None:
    """Check, and with `--stage` write the constant output on which all other stages depend."""
    params = check()
    if list(arguments) == ["--stage"]:
        put_away_leftovers(params)
        write_text(CHECKED, "params.yaml is valid\n")
    else:
        print("params.yaml is valid")


if __name__ == "__main__":
    run(main)
