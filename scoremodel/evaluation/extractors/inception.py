"""Inception, in both ports of its weights that clean-fid knows.

The weights come from clean-fid's own download or from a file. They cannot be downloaded on the machines
that test this project, so its tests use stand-ins of the same interface: a TorchScript with Inception's
calls, and Inception's layers with random weights.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal
from unittest import mock

import torch
from torch import Tensor, nn

from scoremodel.evaluation.extractors.base import EXTRACTORS
from scoremodel.evaluation.extractors.torchscript import ColourExtractor, TorchScript

__all__ = ["Inception", "InceptionMode", "PytorchInception", "load_inception"]

InceptionMode = Literal["clean", "legacy_pytorch", "legacy_tensorflow"]

_WIDTH = 2048


@EXTRACTORS.register("inception")
class Inception(TorchScript):
    """Inception's last pooling layer, as clean-fid resizes and calls it (Parmar et al. 2022).

    Its mode is clean (antialiased bicubic) or legacy_tensorflow (resized inside, as TTUR's code did).
    """

    def compute(self, images: Tensor) -> Tensor:
        if self.mode == "legacy_tensorflow":
            features: Tensor = self.module(images, return_features=True)
        else:
            resized = _resized(images, "clean").to(images.device)
            features = self.module.layers((resized - 128) / 128)
        return features.reshape(len(images), _WIDTH)


@EXTRACTORS.register("inception_pytorch")
class PytorchInception(ColourExtractor):
    """Inception in pytorch-fid's port of the weights, as clean-fid's mode legacy_pytorch calls it.

    Args:
        levels: number of grey levels of the images.
        weights: the port's state by name.
    """

    def __init__(self, levels: int, weights: dict[str, Tensor] | None = None) -> None:
        super().__init__({"levels": levels})
        self.mode: InceptionMode = "legacy_pytorch"
        self.weights: dict[str, Tensor] = {}
        if weights is not None:
            self.load(weights)

    def tensors(self) -> dict[str, Tensor]:
        return self.weights

    def load(self, tensors: dict[str, Tensor]) -> None:
        from cleanfid import inception_pytorch

        self.weights = tensors
        # clean-fid's network downloads its weights as it is made; these are the ones it gets.
        with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=tensors):
            network: nn.Module = inception_pytorch.InceptionV3([3], resize_input=False)
        self.network = network.eval()

    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def compute(self, images: Tensor) -> Tensor:
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
        raise ValueError(
            f"{os.fspath(path)}: damaged, or no weights of pytorch-fid's Inception"
        ) from error
    if not isinstance(state, dict) or "Conv2d_1a_3x3.conv.weight" not in state:
        raise ValueError(f"{os.fspath(path)}: no weights of pytorch-fid's Inception")
    return dict(state)
