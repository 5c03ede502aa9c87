"""Stage features: the extractor's features of the samples, once, for every metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scoremodel.evaluation.extractors.classifier import Classifier, accuracy
from tasks.arrays import read_arrays, write_arrays
from tasks.extraction import extracted
from tasks.hashes import file_hash
from tasks.layout import Data
from tasks.stage import parse_configuration, run

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Write the features of every sampling seed's samples, and how many are of the asked class."""
    configuration, params = parse_configuration(arguments)
    samples, info = read_arrays(configuration.samples)
    labels = info["labels"]
    with extracted(
        configuration.name,
        Data(configuration.dataset).extractor,
        samples,
        {"samples": file_hash(configuration.samples)},
        params,
    ) as (extractor, features, where):
        info["features_environment"] = where
        info["agreement"] = None
        if labels is not None and isinstance(extractor, Classifier):
            info["agreement"] = {
                seed: accuracy(extractor, found, torch.tensor(labels[seed]))
                for seed, found in features.items()
            }
        arrays = {seed: found.numpy() for seed, found in features.items()}
        write_arrays(configuration.features, arrays, info)


if __name__ == "__main__":
    run(main)
