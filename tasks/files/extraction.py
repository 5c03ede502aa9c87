"""Features of many arrays, by chunks that are kept: what is interrupted goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel.evaluation.extractors.base import Extractor, load_extractor
from scoremodel.io.checkpoint import Chunks
from tasks.files.device import Machine, environment, set_up_device
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.stage import code_of
from tasks.files.state import state_folder, stop_on_signals

__all__ = ["extracted"]

_CHUNK = 8192


@contextmanager
def extracted(
    what: str,
    configuration: Configuration,
    arrays: Mapping[str, NDArray[Any]],
    depends_on: Mapping[str, Any],
) -> Iterator[tuple[Extractor, dict[str, Tensor], str]]:
    """Yield the extractor and every array's features; forget the chunks when the block ends well.

    Args:
        what: what the arrays are, for people.
        configuration: what the stage is of; it says which extractor.
        arrays: grey levels or vectors with shape (N, *), by name.
        depends_on: what says which data these are, as JSON.

    Yields:
        The extractor, float32 features with shape (N, D) by name, and the environment they were
        computed in.
    """
    machine = Machine.read()
    device = set_up_device(machine)
    extractor = load_extractor(configuration.extractor, device)
    where = environment(device, machine)
    folder = state_folder(
        f"{what}-{configuration.name}",
        {
            **depends_on,
            "extractor": file_hash(configuration.extractor),
            "chunk": _CHUNK,
            "environment": where,
            "code": code_of(configuration),
        },
    )

    def compute(part: NDArray[Any]) -> dict[str, Tensor]:
        return {"features": extractor.features(torch.from_numpy(np.array(part)))}

    with stop_on_signals() as stop, Chunks(folder, stop) as chunks:
        features = {}
        for key, array in arrays.items():
            parts = [
                chunks.get(f"{key}-{first:010}", partial(compute, array[first : first + _CHUNK]))
                for first in range(0, len(array), _CHUNK)
            ]
            features[key] = torch.cat([part["features"] for part in parts])
        yield extractor, features, where
        chunks.remove()
