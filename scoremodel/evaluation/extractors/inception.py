"""Inception and other fixed extractors of images: the file's content is kept, hashed and loaded again.

Inception's weights come from clean-fid's own download or from a file. They cannot be downloaded on the
machines that test this project, so its tests use stand-ins of the same interface: a TorchScript with
Inception's calls, and Inception's layers with random weights.
"""

from __future__ import annotations

import io
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from scoremodel.evaluation.extractors.classifier import Extractor

__all__ = ["Inception", "PytorchInception", "TorchScript", "colours", "load_inception"]

InceptionMode = Literal["clean", "legacy_pytorch", "legacy_tensorflow"]

_WIDTH = 2048


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


class _Fixed(Extractor):
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
        """Return the features with shape (N, D) of grey levels with shape (N, C, H, W).

        Args:
            data: grey levels.
            batch_size: images at a time.

        Returns:
            float32 features on the CPU.

        Raises:
            ValueError: if the network does not return one vector for each image.
        """
        parts = []
        with torch.inference_mode():
            for part in torch.split(data, batch_size):
                found = self.compute(colours(part, self.levels).to(self.device()))
                if found.ndim != 2 or len(found) != len(part):
                    raise ValueError(
                        f"the {self.kind} extractor returned shape {tuple(found.shape)} for "
                        f"{len(part)} images, allowed: ({len(part)}, D)"
                    )
                parts.append(found.float().cpu())
        return torch.cat(parts)


class TorchScript(_Fixed):
    """Any TorchScript module that maps float32 images in [0, 255], shape (B, 3, H, W), to (B, D).

    Args:
        levels: number of grey levels of the images.
        size: size of the module's file in bytes; the bytes themselves are the state.
        mode: how the module is called, None for as it is.
    """

    kind: ClassVar[str] = "torchscript"
    script: Tensor

    def __init__(self, levels: int, size: int, mode: InceptionMode | None = None) -> None:
        super().__init__({"levels": levels, "size": size, "mode": mode})
        self.mode = mode
        self.register_buffer("script", torch.zeros(size, dtype=torch.uint8))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], levels: int, mode: InceptionMode | None = None
    ) -> Self:
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
            reason = str(error).splitlines()[0]
            raise ValueError(f"{os.fspath(path)}: no TorchScript module ({reason})") from error
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
        """Return where the module runs."""
        return self.script.device

    def compute(self, images: Tensor) -> Tensor:
        """Return what the module returns."""
        features: Tensor = self.module(images)
        return features


class Inception(TorchScript):
    """Inception's last pooling layer, as clean-fid resizes and calls it (Parmar et al. 2022).

    Its mode is clean (antialiased bicubic) or legacy_tensorflow (resized inside, as TTUR's code did).
    """

    kind: ClassVar[str] = "inception"

    def compute(self, images: Tensor) -> Tensor:
        """Return the 2048 features with shape (B, 2048)."""
        if self.mode == "legacy_tensorflow":
            features: Tensor = self.module(images, return_features=True)
        else:
            resized = _resized(images, "clean").to(images.device)
            features = self.module.layers((resized - 128) / 128)
        return features.reshape(len(images), _WIDTH)


class PytorchInception(_Fixed):
    """Inception in pytorch-fid's port of the weights, as clean-fid's mode legacy_pytorch calls it.

    Args:
        levels: number of grey levels of the images.
        weights: the port's state by name.
    """

    kind: ClassVar[str] = "inception_pytorch"

    def __init__(self, levels: int, weights: dict[str, Tensor] | None = None) -> None:
        super().__init__({"levels": levels})
        self.mode: InceptionMode = "legacy_pytorch"
        self.weights: dict[str, Tensor] = {}
        if weights is not None:
            self.load(weights)

    def tensors(self) -> dict[str, Tensor]:
        """Return the port's state, under its own names."""
        return self.weights

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Build clean-fid's network around the port's state."""
        from cleanfid import inception_pytorch

        self.weights = tensors
        # clean-fid's network downloads its weights as it is made; these are the ones it gets.
        with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=tensors):
            network: nn.Module = inception_pytorch.InceptionV3([3], resize_input=False)
        self.network = network.eval()

    def device(self) -> torch.device:
        """Return where the network runs."""
        return next(self.network.parameters()).device

    def compute(self, images: Tensor) -> Tensor:
        """Return the 2048 features with shape (B, 2048)."""
        resized = _resized(images, self.mode).to(images.device)
        features: Tensor = self.network(resized / 255)[0].squeeze(-1).squeeze(-1)
        return features


def _resized(images: Tensor, mode: InceptionMode) -> Tensor:
    from cleanfid.resize import build_resizer

    resize = build_resizer(mode)
    return torch.stack(
        [
            torch.from_numpy(resize(x.permute(1, 2, 0).numpy())).permute(2, 0, 1)
            for x in images.cpu()
        ]
    )


def load_inception(
    mode: InceptionMode, levels: int, path: str | os.PathLike[str] | None = None
) -> Inception | PytorchInception:
    """Return Inception from a file, or from clean-fid's own download.

    Args:
        mode: how images are resized and which port of the weights is used, as clean-fid has it.
        levels: number of grey levels of the images.
        path: clean and legacy_tensorflow: the TorchScript file; legacy_pytorch: pytorch-fid's weights
            (`.pth`); None: download it.

    Returns:
        The extractor.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the download fails.
        ValueError: if the file is damaged or another one, naming it.
    """
    if mode == "legacy_pytorch":
        return PytorchInception(levels, _ported(path))
    if path is not None:
        found = Inception.read(path, levels, mode)
        if not hasattr(found.module, "layers"):
            raise ValueError(f"{os.fspath(path)}: a TorchScript module, but not Inception's")
    else:
        from cleanfid.downloads_helper import check_download_inception

        # clean-fid keeps a broken download for ever; here it goes with its folder.
        with tempfile.TemporaryDirectory() as folder:
            found = Inception.read(check_download_inception(fpath=folder), levels, mode)
    return found


def _ported(path: str | os.PathLike[str] | None) -> dict[str, Tensor]:
    if path is None:
        from cleanfid.inception_pytorch import FID_WEIGHTS_URL

        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "weights.pth"
            digest = FID_WEIGHTS_URL.rsplit("-", 1)[1].removesuffix(".pth")
            torch.hub.download_url_to_file(FID_WEIGHTS_URL, os.fspath(found), digest, False)
            return _ported(found)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch names no one kind for a damaged file
        reason = str(error).splitlines()[0]
        raise ValueError(f"{os.fspath(path)}: no weights of pytorch-fid's ({reason})") from error
    if not isinstance(state, dict) or "Conv2d_1a_3x3.conv.weight" not in state:
        raise ValueError(f"{os.fspath(path)}: no weights of pytorch-fid's Inception")
    return dict(state)
