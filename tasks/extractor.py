"""Stage extractor: a classifier trained on the training split, or a fixed one from its file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scoremodel.evaluation.extractors.classifier import (
    Classifier,
    Extractor,
    Identity,
    accuracy,
    rotations,
    save_extractor,
    train_classifier,
)
from tasks.arrays import read_card, read_rows
from tasks.device import set_up_device
from tasks.hashes import require_file
from tasks.layout import Data
from tasks.params import ClassifierExtractor, InceptionExtractor, Params
from tasks.stage import parse_dataset, run

__all__ = ["main"]


def _trained(
    data: dict[str, Tensor], how: ClassifierExtractor, levels: int, device: torch.device
) -> Classifier:
    if "train_labels" in data:
        task, pixels, labels = "classes", data["train"], data["train_labels"]
        test = data["held_out"], data["held_out_labels"]
    else:
        task = "turns"
        pixels, labels = rotations(data["train"])
        test = rotations(data["held_out"])
    classifier = train_classifier(
        pixels, labels, levels, how.seed, epochs=how.epochs, device=device, progress=True
    )
    share = accuracy(classifier, classifier.features(test[0]), test[1])
    print(f"extractor: {share:.1%} of the held-out images' {task} are right")
    return classifier


def _build(
    data: dict[str, Tensor], params: Params, levels: int | None, device: torch.device
) -> Extractor:
    how = params.evaluation.extractor
    if levels is None:
        return Identity()
    if isinstance(how, ClassifierExtractor):
        return _trained(data, how, levels, device)
    from scoremodel.evaluation.extractors.inception import TorchScript, load_inception

    if how.path is not None and how.sha256 is not None:
        require_file("params.yaml: evaluation.extractor", how.path, how.sha256)
    if isinstance(how, InceptionExtractor):
        return load_inception(how.mode, levels, how.path)
    return TorchScript.read(how.path, levels)


def main(arguments: Sequence[str]) -> None:
    """Write the extractor with which everything about one data set is judged."""
    name, params = parse_dataset(arguments)
    device = set_up_device(params)
    files = Data(name)
    arrays = read_rows(files.arrays)
    data = {key: torch.from_numpy(array) for key, array in arrays.items()}
    save_extractor(_build(data, params, read_card(files.card)["levels"], device), files.extractor)


if __name__ == "__main__":
    run(main)
