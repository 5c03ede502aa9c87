"""The small files that stages depend on, made of the parameters and of the code: `artifacts/resolved`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from scoremodel.data.sources.base import SOURCES
from scoremodel.evaluation.extractors.shipped import shipped_for
from scoremodel.io.files import write_text
from scoremodel.networks.base import NETWORKS
from tasks.files.code import Kinds, closure, main_module
from tasks.files.layout import AXES, EXTERNAL, RESOLVED, Configuration
from tasks.files.resolved import resolved_path
from tasks.params.errors import ParamsError
from tasks.params.schema import Network, Params
from tasks.params.source import read_description

__all__ = ["FOLDER", "extractor_of", "network_of", "resolve", "source_of", "stages", "write"]

_CHOSEN = (
    "scoremodel.networks",
    "scoremodel.processes",
    "scoremodel.samplers",
    "scoremodel.training.times",
)
"""Packages of whose kinds a run has those that params.yaml names for it."""

_JUDGING = ("features", "evaluate")
"""Stages of samples, wherever these are from."""

FOLDER = "folder"
"""The kind of a source that is a folder of images."""


def source_of(raw: Path) -> tuple[dict[str, Any], str]:
    """Return what a data set's folder says of its source, and whether that gives images or vectors.

    Args:
        raw: the folder in `data/raw`.

    Returns:
        The source's description, with its kind, and "images" or "vectors".

    Raises:
        ParamsError: as `read_description` has it.
    """
    try:
        description = read_description(raw)
    except ValueError as error:
        raise ParamsError(str(error)) from None
    if description is None:
        return {"kind": FOLDER}, "images"
    return description, str(SOURCES[description["kind"]].gives)


def stages() -> dict[str, tuple[str, ...]]:
    """Return what each stage's runs differ by, as its module's `run_stage(main, …)` says."""
    found = {}
    folder = Path(__file__).parents[1]
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/__main__.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="run_stage"), args=[_, *axes]):
                    name = path.parent.name if path.stem == "__main__" else path.stem
                    found[name] = tuple(str(ast.literal_eval(axis)) for axis in axes)
    return found


def extractor_of(said: dict[str, Any], source: dict[str, Any], gives: str) -> dict[str, Any]:
    """Return of which kind a data set's features are: what `auto` stands for, if that is said.

    Args:
        said: the block `evaluation.extractor`.
        source: the source's description.
        gives: "images" or "vectors".

    Returns:
        The block of one kind.
    """
    if gives == "vectors":
        return {"kind": "identity"}
    if said["kind"] != "auto":
        return said
    name = shipped_for(source)
    return said | {"kind": "classifier"} if name is None else {"kind": "shipped", "name": name}


def _kinds(
    params: Params, files: Configuration, source: tuple[dict[str, Any], str] | None
) -> Kinds:
    """Return the kinds that one run of a stage is with: what it is of says them.

    Of what a run is not of it has no kinds but those that its modules import, so that a new sampler
    makes neither an application nor a study run again.
    """
    found: dict[str, list[str]] = {package: [] for package in _CHOSEN}
    if source is not None:
        description, gives = source
        found["scoremodel.data.sources"] = [description["kind"]]
        if gives == "vectors":
            found["scoremodel.evaluation.extractors"] = ["identity"]
        elif params.evaluation.extractor.kind in ("auto", "classifier", "shipped"):
            found["scoremodel.evaluation.extractors"] = ["classifier"]
        found["scoremodel.networks"] = [network_of(gives)]
    if files.external:  # which no model and no sampler of ours has made
        return found
    if files.model:
        model: Any = params.models[files.model]
        found["scoremodel.processes"] = [model.sde.kind]
        if source is not None:
            found["scoremodel.networks"] = [network_of(source[1], model.network.model_dump())]
        if model.pretrained is None:
            found["scoremodel.training.times"] = [model.training.times.kind]
    if files.sampler:
        sampler: Any = params.samplers[files.sampler]
        found["scoremodel.samplers"] = [sampler.kind]
        if sampler.path is not None:
            along = {*found["scoremodel.processes"], sampler.path.kind}
            found["scoremodel.processes"] = sorted(along)
    return found


def network_of(gives: str, network: Mapping[str, Any] | None = None) -> str:
    """Return which network images or vectors take, of those in a model's block if that is given."""
    dimensions = {"images": 3, "vectors": 1}[gives]
    fitting = [kind for kind in Network.model_fields if NETWORKS[kind].dimensions == dimensions]
    chosen = [kind for kind in fitting[1:] if (network or {}).get(kind) is not None]
    return (chosen or fitting)[0]


def _configurations(params: Params, stage: str, axes: tuple[str, ...]) -> Iterator[Configuration]:
    """Yield what the active runs of a stage are of: of our own samples, and of those from elsewhere."""
    if stage in (*_JUDGING, EXTERNAL):
        for dataset, name in product(params.active.datasets, params.active.external):
            yield Configuration(dataset, name, sampler=EXTERNAL)
    if stage == EXTERNAL:
        return
    active: dict[str, list[Any]] = {
        "dataset": params.active.datasets,
        "model": params.active.models,
        "train_seed": params.active.train_seeds,
        "sampler": params.active.samplers,
        "application": params.active.applications,
    }
    for values in product(*(active[axis] for axis in AXES if axis in axes)):
        yield Configuration(**dict(zip((a for a in AXES if a in axes), values, strict=True)))


def resolve(params: Params) -> dict[str, Any]:
    """Return the content of every file that stages depend on.

    Args:
        params: all parameters; every active data set has its folder.

    Returns:
        Name, such as "models/digits-ve" → content.

    Raises:
        ParamsError: if a source's description is wrong.
    """
    said = params.model_dump(exclude_unset=True)
    active, evaluation = params.active, said["evaluation"]
    sources = {name: source_of(Configuration(name).raw) for name in active.datasets}

    def judge(*keys: str) -> dict[str, Any]:
        return {key: evaluation[key] for key in keys}

    seed = {"seed": params.seed}
    found: dict[str, Any] = {
        "machine": {key: said[key] for key in ("threads", "device", "tf32", "deterministic")},
        "keeping": {
            key: said[key] for key in ("cores", "processes", "sharded", "checkpoints", "watch")
        },
        "active": said["active"],
        "judge/draws": judge("count", "sampling_seeds", "batch_size"),
        "judge/metrics": judge("count", "sampling_seeds", "neighbours", "margin") | seed,
        "judge/floor": judge("count", "sampling_seeds", "neighbours", "floor_repeats") | seed,
        "judge/panel": judge("panel"),
    }
    for name, (source, gives) in sources.items():
        found[f"datasets/{name}"] = said["datasets"][name] | seed | {"gives": gives}
        found[f"extractors/{name}"] = extractor_of(evaluation["extractor"], source, gives)
        for model in active.models:
            whole = said["models"][model]
            network = network_of(gives, whole["network"])
            taken = {"network": {network: whole["network"][network]}}
            # Of a published model nothing depends on how others are trained.
            left_out = ("training", "energy") if whole.get("pretrained") else ()
            kept = {key: value for key, value in whole.items() if key not in left_out}
            found[f"models/{name}-{model}"] = kept | taken
    for name in active.samplers:
        found[f"samplers/{name}"] = said["samplers"][name]
    for name in active.external:
        found[f"external/{name}"] = params.external[name].model_dump()
    for name in active.applications:
        found[f"applications/{name}"] = said["applications"][name] | seed
    for name in active.studies:
        found[f"studies/{name}"] = said["studies"][name]
    for stage, axes in stages().items():
        entry = main_module(f"tasks.{stage}")
        for files in _configurations(params, stage, axes):
            kinds = _kinds(params, files, sources.get(files.dataset))
            name = f"code/{stage}" + (f"@{files.name}" if axes else "")
            found[name] = asdict(closure(entry, kinds))
    return found


def write(found: Mapping[str, Any]) -> None:
    """Write the files that are new or different, each whole or not at all, and remove all others.

    Args:
        found: what `resolve` returned.
    """
    kept = set()
    for name, content in found.items():
        path, text = resolved_path(name), json.dumps(content, indent=1) + "\n"
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
        kept.add(path)
    for path in RESOLVED.rglob("*"):  # DVC keeps the folder, with what a killed one left in it
        if path not in kept and not path.is_dir():
            path.unlink()
