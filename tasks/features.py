"""Stage features: the extractor's features of the samples, once, for every metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel.checkpoint import Chunks
from scoremodel.evaluation.extractor import Classifier, accuracy, load_extractor
from tasks.arrays import read_arrays, write_arrays
from tasks.device import environment, set_up_device
from tasks.hashes import file_hash
from tasks.layout import Data
from tasks.stage import parse_configuration, run
from tasks.state import state_folder, stop_on_signals

__all__ = ["main"]

_CHUNK = 8192


def main(arguments: Sequence[str]) -> None:
    """Write the features of every sampling seed's samples, and how many are of the asked class."""
    configuration, params = parse_configuration(arguments)
    device = set_up_device(params)
    extractor = load_extractor(Data(configuration.dataset).extractor, device)
    samples, info = read_arrays(configuration.samples)
    labels = info.pop("labels")
    folder = state_folder(
        f"features-{configuration.name}",
        params,
        {
            "samples": file_hash(configuration.samples),
            "extractor": file_hash(Data(configuration.dataset).extractor),
            "chunk": _CHUNK,
            "environment": environment(device, params),
        },
    )

    def compute(part: NDArray[Any]) -> dict[str, Tensor]:
        return {"features": extractor.features(torch.from_numpy(part))}

    with stop_on_signals() as stop, Chunks(folder, stop) as chunks:
        features = {}
        for seed, array in samples.items():
            parts = [
                chunks.get(f"{seed}-{first:010}", partial(compute, array[first : first + _CHUNK]))
                for first in range(0, len(array), _CHUNK)
            ]
            features[seed] = torch.cat([part["features"] for part in parts])
        info["extractor"] = extractor.kind
        info["agreement"] = None
        if labels is not None and isinstance(extractor, Classifier):
            info["agreement"] = {
                seed: accuracy(extractor, found, torch.tensor(labels[seed]))
                for seed, found in features.items()
            }
        arrays = {seed: found.numpy() for seed, found in features.items()}
        write_arrays(configuration.features, arrays, info)
        chunks.remove()


if __name__ == "__main__":
    run(main)
