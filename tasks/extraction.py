"""Features of many arrays, by chunks that are kept: what is interrupted goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel.io.checkpoint import Chunks
from scoremodel.evaluation.extractors.classifier import Extractor, load_extractor
from tasks.device import environment, set_up_device
from tasks.hashes import file_hash
from tasks.params import Params
from tasks.state import state_folder, stop_on_signals

__all__ = ["extracted"]

_CHUNK = 8192


@contextmanager
def extracted(
    name: str,
    extractor_file: Path,
    arrays: Mapping[str, NDArray[Any]],
    depends_on: Mapping[str, Any],
    params: Params,
) -> Iterator[tuple[Extractor, dict[str, Tensor], str]]:
    """Yield the extractor and every array's features; forget the chunks when the block ends well.

    Args:
        name: what the work is called, for people.
        extractor_file: the extractor's file.
        arrays: grey levels or vectors with shape (N, *), by name.
        depends_on: what says which data these are, as JSON.
        params: all parameters.

    Yields:
        The extractor, float32 features with shape (N, D) by name, and the environment they were
        computed in.
    """
    device = set_up_device(params)
    extractor = load_extractor(extractor_file, device)
    where = environment(device, params)
    folder = state_folder(
        f"features-{name}",
        params,
        {
            **depends_on,
            "extractor": file_hash(extractor_file),
            "chunk": _CHUNK,
            "environment": where,
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
