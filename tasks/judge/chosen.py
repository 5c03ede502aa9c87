"""Which extractor judges: as the command line says it, or as the card of somebody's statistics does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from scoremodel.bounds import shown
from scoremodel.evaluation.extractors.base import Extractor, load_extractor, save_extractor
from scoremodel.evaluation.extractors.shipped import SHA256, shipped_file
from tasks.extractor import fixed
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.judge.statistics import Statistics
from tasks.params.errors import ParamsError
from tasks.params.schema import Inception, Shipped

__all__ = ["extractor_block", "extractor_for"]

_TRAINED = ("auto", "classifier")
_FILE = "torchscript:FILE"


def _named() -> dict[str, dict[str, str]]:
    """Return what the command line calls an extractor → what `evaluation.extractor` has of it."""
    found = {kind: {"kind": kind} for kind in _TRAINED}
    for kind, block, key in (("shipped", Shipped, "name"), ("inception", Inception, "mode")):
        for value in get_args(block.model_fields[key].annotation):
            found[f"{kind}:{value}"] = {"kind": kind, key: value}
    return found


def extractor_block(said: str | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block `evaluation.extractor` by the command line's name of an extractor.

    Args:
        said: auto, classifier, shipped:NAME, inception:MODE or torchscript:FILE; None for params.yaml's.
        own: the block of params.yaml, which says all else of an extractor of its kind.

    Returns:
        The block; the file of a TorchScript module is taken as it is.

    Raises:
        ParamsError: if there is no such extractor, or no such file.
    """
    if said is None:
        return dict(own)
    names = _named()
    kind, _, file = said.partition(":")
    if kind == "torchscript" and file:
        if not Path(file).is_file():
            raise ParamsError(f"--extractor: {shown(file)} is no file, allowed: a TorchScript file")
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        return {"kind": kind, "path": str(Path(file).resolve()), "sha256": digest}
    if said not in names:
        allowed = ", ".join([*names, _FILE])
        raise ParamsError(f"--extractor: {shown(said)} is not allowed, allowed: {allowed}")
    alike = own["kind"] == kind or {own["kind"], kind} <= {*_TRAINED}
    return {**(own if alike else {}), **names[said]}


def extractor_for(
    statistics: Statistics, how: Mapping[str, Any], said: bool, shape: Sequence[int]
) -> tuple[Extractor, str]:
    """Return an extractor for samples of which there is no data set, and the hash of its file.

    Args:
        statistics: what the samples are compared with.
        how: the block `evaluation.extractor`.
        said: whether the command line says it; else the card of the statistics may say another one.
        shape: of one sample as its file has it.

    Returns:
        The extractor that the command line, the card, or params.yaml names, the first that does.

    Raises:
        ParamsError: if none does, or only one that is trained on data, or is not here.
    """
    card, levels = statistics.card, 256
    if card is not None:
        shape, levels = card["shape"], card["levels"]
    if len(shape) == 1:
        return _written(fixed({"kind": "identity"}, None))
    if card is not None and not said:
        for path in _here():
            if file_hash(path) == card["extractor"]:
                return load_extractor(path), card["extractor"]
    if how["kind"] == "shipped":
        path = shipped_file(how["name"], 0)
        return load_extractor(path), file_hash(path)
    if how["kind"] not in _TRAINED:
        return _written(fixed(dict(how), levels))
    allowed = ", ".join([*(name for name in _named() if name not in _TRAINED), _FILE])
    if said:
        why = f"{how['kind']!r} is not allowed without --dataset, on which it would be trained"
        raise ParamsError(f"--extractor: {why}, allowed: {allowed}")
    if card is None:
        why = f"nothing beside {statistics.path} says by which extractor it was made"
        raise ParamsError(f"--extractor: missing, {why}, allowed: {allowed}; or --dataset")
    raise ParamsError(
        f"{statistics.card_path}: statistics of {shown(card['metric'])}, whose file is not here, allowed: "
        f"--dataset, or --extractor and what has that hash: {allowed}"
    )


def _here() -> list[Path]:
    """Return the files of extractors that are at hand: the shipped ones, and the pipeline's own."""
    names = [file.removesuffix(".safetensors").rpartition("_") for file in SHA256]
    own = Configuration("*").extractors
    return [
        *(shipped_file(name, int(number)) for name, _, number in names),
        *sorted(Path().glob(f"{own}/*.safetensors")),
    ]


def _written(extractor: Extractor) -> tuple[Extractor, str]:
    """Return an extractor, and the hash of the file that it would be kept in."""
    with TemporaryDirectory(prefix="scoremodel-") as folder:
        path = Path(folder, "judge.safetensors")
        save_extractor(extractor, path)
        return load_extractor(path), file_hash(path)
