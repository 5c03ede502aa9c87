"""What every extractor is, and how it is kept in a file.

Distances are comparable within one extractor only, so its file is kept, hashed and named beside every
number.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoremodel.io.weights import read_weights, write_weights
from scoremodel.registry import Registry

__all__ = ["EXTRACTORS", "Extractor", "load_extractor", "save_extractor"]


class Extractor(nn.Module):
    """Something that maps data to features, and can be written to a file.

    Args:
        config: keyword arguments from which the extractor is made again.
    """

    kind: ClassVar[str]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

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
    """Write weights and configuration as one safetensors file, whole or not at all."""
    write_weights(path, extractor.tensors(), {"kind": extractor.kind, "config": extractor.config})


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
    kind = stored.get("kind")
    if kind not in EXTRACTORS:
        raise ValueError(f"{os.fspath(path)}: holds no extractor, allowed: {', '.join(EXTRACTORS)}")
    extractor = EXTRACTORS[kind](**stored["config"]).to(device)
    extractor.load(tensors)
    return extractor.to(device).eval().requires_grad_(False)
