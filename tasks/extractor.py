"""Stage extractor: a classifier trained on the training split, and the real data's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scoremodel.evaluation.extractor import (
    Extractor,
    Identity,
    accuracy,
    rotations,
    save_extractor,
    train_classifier,
)
from tasks.arrays import read_card, read_rows, write_arrays
from tasks.device import set_up_device
from tasks.layout import Data
from tasks.stage import parse_dataset, run

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Write the extractor and the features of train and held-out."""
    name, params = parse_dataset(arguments)
    how = params.evaluation.extractor
    device = set_up_device(params)
    files = Data(name)
    card = read_card(files.card)
    arrays = read_rows(files.arrays)
    data = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if card["levels"] is None:
        extractor: Extractor = Identity()
    else:
        if "train_labels" in data:
            task, pixels, labels = "classes", data["train"], data["train_labels"]
            test = data["held_out"], data["held_out_labels"]
        else:
            task = "turns"
            pixels, labels = rotations(data["train"])
            test = rotations(data["held_out"])
        classifier = train_classifier(
            pixels,
            labels,
            card["levels"],
            how.seed,
            epochs=how.epochs,
            device=device,
            progress=True,
        )
        share = accuracy(classifier, classifier.features(test[0]), test[1])
        print(f"extractor: {share:.1%} of the held-out images' {task} are right")
        extractor = classifier
    save_extractor(extractor, files.extractor)
    features = {key: extractor.features(data[key]).numpy() for key in ("train", "held_out")}
    write_arrays(files.features, features)


if __name__ == "__main__":
    run(main)
