"""What every extractor is, and how it is kept in a file.

Distances are comparable within one extractor only, so its file is kept, hashed and named beside every
number. A trained one fits the images it was trained on better than others of the same kind, so that their
features are not those of new data: its file says which images these are.
"""

from __future__ import annotations

import math
import os
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scoremodel.bounds import shown
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.registry import Registry

__all__ = [
    "EXTRACTORS",
    "Extractor",
    "equal_batches",
    "grey_levels",
    "image_hashes",
    "load_extractor",
    "save_extractor",
]

_SEEN = "seen"


def image_hashes(images: NDArray[np.uint8] | Tensor) -> NDArray[np.int64]:
    """Return a 64-bit hash of each image's bytes, BLAKE2b's.

    Args:
        images: grey levels with shape (N, C, H, W).

    Returns:
        Hashes with shape (N,), each an integer in [−2^63, 2^63).
    """
    digests = (blake2b(np.ascontiguousarray(one).data, digest_size=8).digest() for one in images)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def equal_batches(data: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Return the rows in batches of at most so many, their sizes equal but for one.

    A last batch of a few rows would be rounded otherwise than a large one, and the features of a copy
    would not be those of what it copies.
    """
    return torch.tensor_split(data, max(1, math.ceil(len(data) / batch_size)))


def grey_levels(data: Tensor, levels: int) -> Tensor:
    """Return images as they are, if they are grey levels: of other numbers the features mean nothing.

    Args:
        data: images with shape (N, C, H, W), as integers.
        levels: number of grey levels.

    Returns:
        The images.

    Raises:
        ValueError: if they are real numbers, of another shape, or out of range.
    """
    if not isinstance(data, Tensor) or data.is_floating_point() or data.ndim != 4:
        what = (
            f"{data.dtype} of shape {tuple(data.shape)}" if hasattr(data, "dtype") else shown(data)
        )
        raise ValueError(
            f"features: {what} is not allowed, allowed: a tensor of grey levels 0 … {levels - 1} with "
            f"shape (N, C, H, W), such as scoremodel.quantise(x, {levels}) makes of x in [-1, 1]"
        )
    if data.numel() and int(data.max()) >= levels:
        raise ValueError(
            f"features: grey level {int(data.max())} is not allowed, allowed: 0 … {levels - 1}"
        )
    return data


class Extractor(nn.Module):
    """Something that maps data to features, and can be written to a file.

    Args:
        config: keyword arguments from which the extractor is made again.
    """

    kind: ClassVar[str]
    seen: NDArray[np.int64]
    """Sorted `image_hashes` of the images that it was trained on; none, if it was trained elsewhere."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.seen = np.empty(0, np.int64)

    def has_seen(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return of which images it is known that the extractor was trained on them.

        Args:
            images: grey levels with shape (N, C, H, W).

        Returns:
            True or False of each, with shape (N,).
        """
        if not len(self.seen):
            return np.zeros(len(images), np.bool_)
        return np.isin(image_hashes(images), self.seen)

    def features(self, data: Tensor, batch_size: int = 512) -> Tensor:
        """Return the features of data.

        Args:
            data: grey levels with shape (N, C, H, W), or vectors with shape (N, D).
            batch_size: how many at a time.

        Returns:
            float32 features on the CPU, one row for each.

        Raises:
            ValueError: if the extractor does not take such data, or does not give one vector for each.
        """
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return what is to be kept beside the configuration."""
        return self.state_dict()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` returned."""
        self.load_state_dict(tensors)


EXTRACTORS: Registry[type[Extractor]] = Registry("scoremodel.evaluation.extractors", "extractor")
"""The extractors by the name that stands in their files."""


def save_extractor(extractor: Extractor, path: str | os.PathLike[str]) -> None:
    """Write weights, configuration and what was seen as one safetensors file, whole or not at all."""
    tensors = extractor.tensors() | {_SEEN: torch.from_numpy(extractor.seen)}
    write_weights(path, tensors, {"kind": extractor.kind, "config": extractor.config})


def load_extractor(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Extractor:
    """Return the extractor that `save_extractor` wrote, in evaluation mode on `device`.

    Args:
        path: a safetensors file.
        device: where the extractor runs.

    Returns:
        One of the registered extractors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds no extractor.
    """
    tensors, stored = read_weights(path, device)
    kind = stored.get("kind", "") if isinstance(stored, dict) else ""
    if kind not in EXTRACTORS or _SEEN not in tensors:
        raise ValueError(f"{os.fspath(path)}: holds no extractor, allowed: {', '.join(EXTRACTORS)}")
    extractor = EXTRACTORS[kind](**stored["config"]).to(device)
    extractor.seen = tensors.pop(_SEEN).cpu().numpy()
    extractor.load(tensors)
    return extractor.to(device).eval().requires_grad_(False)
