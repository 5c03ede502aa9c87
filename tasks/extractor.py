"""Stage extractor: the judge of one data set and its panel: shipped, trained here, or from a file."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremodel.evaluation.extractors.base import Extractor, load_extractor, save_extractor
from tasks.files.arrays import read_card, read_rows
from tasks.files.device import Machine, set_up_device
from tasks.files.extraction import extractor_file
from tasks.files.hashes import require_file
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage

__all__ = ["fixed", "main"]


def _trained(
    data: dict[str, NDArray[Any]], how: dict[str, Any], levels: int, more: int
) -> Iterator[Extractor]:
    """Yield classifiers that differ by their seeds, trained on the same part of the training split."""
    from scoremodel.evaluation.extractors.classifier import (
        accuracy,
        part,
        rotations,
        train_classifier,
    )

    device = set_up_device(Machine.read())
    labels = data.get("train_labels")
    rows = part(len(data["train"]), how["share"], how["seed"], labels)
    pixels, test = torch.from_numpy(data["train"][rows]), torch.from_numpy(data["held_out"])
    if labels is not None:
        task, classes = "classes", torch.from_numpy(labels[rows])
        right = torch.from_numpy(data["held_out_labels"])
    else:
        task, (pixels, classes), (test, right) = "turns", rotations(pixels), rotations(test)
    for seed in range(how["seed"], how["seed"] + 1 + more):
        classifier = train_classifier(
            pixels, classes, levels, seed, epochs=how["epochs"], device=device, progress=True
        )
        share = accuracy(classifier, classifier.features(test), right)
        print(f"extractor: {share:.1%} of the held-out images' {task} are right")
        chance = float(torch.bincount(right).max() / len(right))
        if share <= chance + 3 * math.sqrt(chance * (1 - chance) / len(right)):
            print(
                f"extractor: that is no more than chance ({chance:.1%}): its features say little of these "
                "images, nor do distances by them; allowed: another evaluation.extractor"
            )
        yield classifier


def fixed(how: dict[str, Any], levels: int | None) -> Extractor:
    """Return the extractor that is trained on nothing here: the identity, or a file's.

    Args:
        how: the block `evaluation.extractor`.
        levels: number of grey levels of images, None of vectors.

    Returns:
        The extractor.

    Raises:
        ValueError: if the file is another, or damaged.
    """
    if levels is None:
        from scoremodel.evaluation.extractors.identity import Identity

        return Identity()
    path = how.get("path")
    if path is not None:
        require_file("params.yaml: evaluation.extractor", path, how["sha256"])
    if how["kind"] == "inception":
        from scoremodel.evaluation.extractors.inception import load_inception

        return load_inception(how["mode"], levels, path)
    from scoremodel.evaluation.extractors.torchscript import TorchScript

    return TorchScript.read(how["path"], levels)


def _shipped(name: str, card: dict[str, Any], more: int) -> list[Path]:
    from scoremodel.evaluation.extractors.shipped import shipped_file

    files = [shipped_file(name, number) for number in range(1 + more)]
    config = load_extractor(files[0]).config
    for key in ("shape", "levels"):
        if config[key] != card[key]:
            raise ValueError(
                f"params.yaml: evaluation.extractor.name: {name!r} is not allowed for "
                f"{card['name']}, whose {key} is {card[key]}, allowed: {config[key]}"
            )
    return files


def main(files: Configuration) -> None:
    """Write the extractor with which everything about one data set is judged, and its panel."""
    how, more = resolved(f"extractors/{files.dataset}"), resolved("judge/panel")["panel"]
    card = read_card(files.card)
    shutil.rmtree(files.extractors, ignore_errors=True)
    files.extractors.mkdir(parents=True)
    if how["kind"] == "shipped":
        for number, path in enumerate(_shipped(how["name"], card, more)):
            shutil.copyfile(path, extractor_file(files, number))
    elif how["kind"] == "classifier":
        data = {name: np.asarray(rows) for name, rows in read_rows(files.arrays, card).items()}
        for number, classifier in enumerate(_trained(data, how, card["levels"], more)):
            save_extractor(classifier, extractor_file(files, number))
    else:
        save_extractor(fixed(how, card["levels"]), extractor_file(files))


if __name__ == "__main__":
    run_stage(main, "dataset")
