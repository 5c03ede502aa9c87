"""Vectors are their own features."""

from __future__ import annotations

from torch import Tensor

from scoremodel.evaluation.extractors.base import EXTRACTORS, Extractor

__all__ = ["Identity"]


@EXTRACTORS.register("identity")
class Identity(Extractor):
    """Vectors are their own features."""

    def __init__(self) -> None:
        super().__init__({})

    def features(self, data: Tensor, batch_size: int = 512) -> Tensor:
        return data.float()
