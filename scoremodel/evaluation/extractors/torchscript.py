"""Fixed extractors of images: any TorchScript module, whose file's content is kept, hashed and loaded."""

from __future__ import annotations

import io
import os
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from scoremodel.evaluation.extractors.base import EXTRACTORS, Extractor, equal_batches, grey_levels

__all__ = ["ColourExtractor", "TorchScript", "colours"]


def colours(pixels: Tensor, levels: int) -> Tensor:
    """Return images as extractors of photographs expect them.

    Args:
        pixels: grey levels with shape (B, C, H, W), C = 1 or 3.
        levels: number of grey levels.

    Returns:
        float32 images with shape (B, 3, H, W), in whole numbers 0 … 255 as a PNG file has them.

    Raises:
        ValueError: if there are neither 1 nor 3 channels.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"images of shape {tuple(pixels.shape[1:])}, allowed: 1 or 3 channels")
    return (pixels.float() * (255 / (levels - 1))).round().expand(-1, 3, -1, -1)


class ColourExtractor(Extractor):
    """An extractor of colour images whose features come from a network that is not ours."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.levels: int = config["levels"]

    def compute(self, images: Tensor) -> Tensor:
        """Return the features with shape (B, D) of images in [0, 255] with shape (B, 3, H, W)."""
        raise NotImplementedError

    def device(self) -> torch.device:
        """Return where the network runs."""
        raise NotImplementedError

    def features(self, data: Tensor, batch_size: int = 64) -> Tensor:
        parts = []
        with torch.inference_mode():
            for part in equal_batches(grey_levels(data, self.levels), batch_size):
                found = self.compute(colours(part, self.levels).to(self.device()))
                if found.ndim != 2 or len(found) != len(part):
                    raise ValueError(
                        f"the {self.kind} extractor returned shape {tuple(found.shape)} for "
                        f"{len(part)} images, allowed: ({len(part)}, D)"
                    )
                parts.append(found.float().cpu())
        return torch.cat(parts)


@EXTRACTORS.register("torchscript")
class TorchScript(ColourExtractor):
    """Any TorchScript module that maps float32 images in [0, 255], shape (B, 3, H, W), to (B, D).

    Args:
        levels: number of grey levels of the images.
        size: size of the module's file in bytes; the bytes themselves are the state.
        mode: how the module is called, None for as it is.
    """

    script: Tensor

    def __init__(self, levels: int, size: int, mode: str | None = None) -> None:
        super().__init__({"levels": levels, "size": size, "mode": mode})
        self.mode = mode
        self.register_buffer("script", torch.zeros(size, dtype=torch.uint8))

    @classmethod
    def read(cls, path: str | os.PathLike[str], levels: int, mode: str | None = None) -> Self:
        """Return the extractor of a TorchScript file.

        Args:
            path: the file.
            levels: number of grey levels of the images.
            mode: how the module is called, None for as it is.

        Returns:
            The extractor, loaded once to see that it can be.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no TorchScript module, naming it.
        """
        content = np.fromfile(path, np.uint8)
        extractor = cls(levels, len(content), mode)
        extractor.script.copy_(torch.from_numpy(content))
        try:
            extractor.module  # noqa: B018
        except RuntimeError as error:
            raise ValueError(f"{os.fspath(path)}: damaged, or no TorchScript module") from error
        return extractor

    @cached_property
    def module(self) -> torch.jit.ScriptModule:
        """The module, on the device where the extractor was when it was first used."""
        content = io.BytesIO(self.script.cpu().numpy().tobytes())
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            content, map_location=self.device()
        )
        return module.eval()

    def device(self) -> torch.device:
        return self.script.device

    def compute(self, images: Tensor) -> Tensor:
        features: Tensor = self.module(images)
        return features
