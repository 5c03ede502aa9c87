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

__all__ = ["JUDGE", "Extracted", "extracted", "extractor_file", "help_extract"]

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


class _Work:
    """What is to be extracted, in chunks that any process of the stage may compute."""

    def __init__(
        self,
        what: str,
        configuration: Configuration,
        arrays: Mapping[str, NDArray[Any]],
        depends_on: Mapping[str, Any],
        panel: bool,
    ) -> None:
        machine = Machine.read()
        self.what, self.arrays = what, arrays
        self.device = set_up_device(machine)
        self.where = environment(self.device, machine)
        self.files = [extractor_file(configuration)]
        if panel:
            self.files += sorted(configuration.extractors.glob("panel_*.safetensors"))
        self.digests = {path.stem: file_hash(path) for path in self.files}
        self.folder = state_folder(
            f"{what}-{configuration.name}",
            {
                **depends_on,
                "extractors": self.digests,
                "chunk": _CHUNK,
                "environment": self.where,
                "code": code_of(configuration),
            },
        )

    def chunks(
        self, path: Path, extractor: Extractor
    ) -> dict[str, dict[str, partial[dict[str, Tensor]]]]:
        """Return what computes an extractor's chunks, by name, of each array."""
        return {
            key: {
                f"{path.stem}-{key}-{first:010}": partial(
                    self._compute, path, extractor, array[first : first + _CHUNK]
                )
                for first in range(0, len(array), _CHUNK)
            }
            for key, array in self.arrays.items()
        }

    def _compute(self, path: Path, extractor: Extractor, part: NDArray[Any]) -> dict[str, Tensor]:
        found = extractor.features(torch.from_numpy(np.array(part)))
        if broken := int((~found.isfinite().all(dim=1)).sum()):
            raise FloatingPointError(
                f"{path}: makes features that are not finite of {broken} of {len(part)} {self.what}; "
                "no features are written"
            )
        return {"features": found}


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
    work = _Work(what, configuration, arrays, depends_on, panel)
    with stop_on_signals() as stop, Chunks(work.folder, stop) as chunks:
        found = []
        for path in work.files:
            extractor = load_extractor(path, work.device)
            makers = work.chunks(path, extractor)
            for own in makers.values():
                chunks.fill(own)
            features = {
                key: torch.cat([chunks.get(name, make)["features"] for name, make in own.items()])
                for key, own in makers.items()
            }
            found.append(Extracted(path.stem, extractor, work.digests[path.stem], features))
        yield found, work.where
        chunks.remove()


def help_extract(
    what: str,
    configuration: Configuration,
    arrays: Mapping[str, NDArray[Any]],
    depends_on: Mapping[str, Any],
) -> None:
    """Compute the features that no other process of the stage is at work on; arguments as `extracted`."""
    work = _Work(what, configuration, arrays, depends_on, panel=True)
    with stop_on_signals() as stop:
        chunks = Chunks(work.folder, stop)
        for path in work.files:
            extractor = load_extractor(path, work.device)
            for own in work.chunks(path, extractor).values():
                chunks.fill(own)
    print(f"{what}: {chunks.computed} parts computed here")
