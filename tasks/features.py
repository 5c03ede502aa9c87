"""Stage features: the extractors' features of the samples, once, for every metric."""

from __future__ import annotations

import numpy as np
import torch

from tasks.files.arrays import read_arrays, write_arrays
from tasks.files.extraction import Extracted, extracted, help_extract
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.ranks import with_helpers
from tasks.files.stage import run_stage

__all__ = ["main"]


def _agreement(judge: Extracted, labels: dict[str, list[int]]) -> dict[str, float] | None:
    """Return the share of each seed's samples that a classifier sees as the class asked for."""
    extractor = judge.extractor
    if extractor.kind != "classifier":
        return None
    from scoremodel.evaluation.extractors.classifier import Classifier, accuracy

    assert isinstance(extractor, Classifier)
    return {
        seed: accuracy(extractor, found, torch.tensor(labels[seed]))
        for seed, found in judge.features.items()
    }


def main(files: Configuration, helps: bool = False) -> None:
    """Write the features of every sampling seed's samples, and how many are of the asked class.

    Args:
        files: says which samples.
        helps: whether to compute only what the process that writes has not computed yet.
    """
    samples, info = read_arrays(files.samples, ("labels",))
    labels = info["labels"]
    made_of = {"samples": file_hash(files.samples)}
    if helps:
        help_extract("samples", files, samples, made_of)
        return
    with extracted("samples", files, samples, made_of) as ((judge, *panel), where):
        info["features_environment"] = where
        info["agreement"] = None if labels is None else _agreement(judge, labels)
        arrays = {seed: found.numpy() for seed, found in judge.features.items()}
        write_arrays(files.features, arrays, info)
        several = {one.name: np.stack([*map(np.asarray, one.features.values())]) for one in panel}
        write_arrays(files.panel_features, several)


if __name__ == "__main__":
    run_stage(with_helpers(main), "dataset", "model", "train_seed", "sampler", helped=True)
