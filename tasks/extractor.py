"""Stage extractor: a classifier trained on the training split, or a fixed one from its file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoremodel.evaluation.extractors.base import Extractor, save_extractor
from tasks.files.arrays import read_card, read_rows
from tasks.files.device import Machine, set_up_device
from tasks.files.hashes import require_file
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage

__all__ = ["main"]


def _trained(
    data: dict[str, Tensor], how: dict[str, Any], levels: int, device: torch.device
) -> Extractor:
    from scoremodel.evaluation.extractors.classifier import accuracy, rotations, train_classifier

    if "train_labels" in data:
        task, pixels, labels = "classes", data["train"], data["train_labels"]
        test = data["held_out"], data["held_out_labels"]
    else:
        task = "turns"
        pixels, labels = rotations(data["train"])
        test = rotations(data["held_out"])
    classifier = train_classifier(
        pixels, labels, levels, how["seed"], epochs=how["epochs"], device=device, progress=True
    )
    share = accuracy(classifier, classifier.features(test[0]), test[1])
    print(f"extractor: {share:.1%} of the held-out images' {task} are right")
    return classifier


def _build(
    data: dict[str, Tensor], how: dict[str, Any], levels: int | None, device: torch.device
) -> Extractor:
    if levels is None:
        from scoremodel.evaluation.extractors.identity import Identity

        return Identity()
    if how["kind"] == "classifier":
        return _trained(data, how, levels, device)
    path = how.get("path")
    if path is not None:
        require_file("params.yaml: evaluation.extractor", path, how["sha256"])
    if how["kind"] == "inception":
        from scoremodel.evaluation.extractors.inception import load_inception

        return load_inception(how["mode"], levels, path)
    from scoremodel.evaluation.extractors.torchscript import TorchScript

    return TorchScript.read(how["path"], levels)


def main(files: Configuration) -> None:
    """Write the extractor with which everything about one data set is judged."""
    device = set_up_device(Machine.read())
    arrays = read_rows(files.arrays)
    data = {key: torch.from_numpy(array) for key, array in arrays.items()}
    how = resolved(f"extractors/{files.dataset}")
    save_extractor(_build(data, how, read_card(files.card)["levels"], device), files.extractor)


if __name__ == "__main__":
    run_stage(main, "dataset")
