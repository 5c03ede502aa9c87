"""Features of many arrays, by chunks that are kept: what is interrupted goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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

__all__ = ["JUDGE", "Extracted", "extracted", "extractor_file"]

JUDGE = "judge"
"""The name of the extractor by which everything is judged."""

_CHUNK = 8192


@dataclass(frozen=True)
class Extracted:
    """One extractor and what it makes of some arrays.

    Args:
        name: "judge", or "panel_1" and so on.
        extractor: the extractor.
        digest: the hash of its file.
        features: float32 features with shape (N, D), by the arrays' names.
    """

    name: str
    extractor: Extractor
    digest: str
    features: dict[str, Tensor]

    @property
    def metric(self) -> str:
        """What the Fréchet distance of such features is called: only Inception's is FID.

        Eight characters of the file's hash tell one extractor from another.
        """
        mode = getattr(self.extractor, "mode", None)
        if mode is not None:
            return f"FID (clean-fid {mode}, {self.digest[:8]})"
        return f"FD ({self.extractor.kind} {self.digest[:8]})"


def extractor_file(configuration: Configuration, number: int = 0) -> Path:
    """Return where an extractor of a data set lies: number 0 is the judge, the others are the panel."""
    name = f"panel_{number}" if number else JUDGE
    return configuration.extractors / f"{name}.safetensors"


@contextmanager
def extracted(
    what: str,
    configuration: Configuration,
    arrays: Mapping[str, NDArray[Any]],
    depends_on: Mapping[str, Any],
    panel: bool = True,
) -> Iterator[tuple[list[Extracted], str]]:
    """Yield the extractors and their features of arrays; forget the chunks when the block ends well.

    Args:
        what: what the arrays are, for people.
        configuration: what the stage is of; it says which extractors.
        arrays: grey levels or vectors with shape (N, *), by name.
        depends_on: what says which data these are, as JSON.
        panel: whether the panel's features are wanted too.

    Yields:
        The judge and then the panel, each with its features, and the environment they were computed in.

    Raises:
        FloatingPointError: if a feature is not finite, naming the extractor.
    """
    machine = Machine.read()
    device = set_up_device(machine)
    where = environment(device, machine)
    files = [extractor_file(configuration)]
    if panel:
        files += sorted(configuration.extractors.glob("panel_*.safetensors"))
    digests = {path.stem: file_hash(path) for path in files}
    folder = state_folder(
        f"{what}-{configuration.name}",
        {
            **depends_on,
            "extractors": digests,
            "chunk": _CHUNK,
            "environment": where,
            "code": code_of(configuration),
        },
    )

    def compute(path: Path, extractor: Extractor, part: NDArray[Any]) -> dict[str, Tensor]:
        found = extractor.features(torch.from_numpy(np.array(part)))
        if broken := int((~found.isfinite().all(dim=1)).sum()):
            raise FloatingPointError(
                f"{path}: makes features that are not finite of {broken} of {len(part)} {what}; no "
                "features are written"
            )
        return {"features": found}

    with stop_on_signals() as stop, Chunks(folder, stop) as chunks:
        found = []
        for path in files:
            extractor = load_extractor(path, device)
            features = {}
            for key, array in arrays.items():
                parts = [
                    chunks.get(
                        f"{path.stem}-{key}-{first:010}",
                        partial(compute, path, extractor, array[first : first + _CHUNK]),
                    )
                    for first in range(0, len(array), _CHUNK)
                ]
                features[key] = torch.cat([part["features"] for part in parts])
            found.append(Extracted(path.stem, extractor, digests[path.stem], features))
        yield found, where
        chunks.remove()
