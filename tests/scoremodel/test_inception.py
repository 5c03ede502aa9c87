"""Inception and TorchScript extractors, on stand-ins of the same interface: the weights are not here."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from scoremodel.evaluation.extractors.base import load_extractor, save_extractor
from scoremodel.evaluation.extractors.inception import load_inception
from scoremodel.evaluation.extractors.torchscript import TorchScript


class StandIn(nn.Module):
    """What clean-fid calls of Inception's TorchScript: `layers`, and resizing inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.AvgPool2d(13), nn.Conv2d(3, 2048, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        x = nn.functional.interpolate(x, [299, 299], mode="bilinear", align_corners=False)
        found = self.layers((x - 128) / 128)
        return found if return_features else found.sum(1)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt"
    torch.jit.script(StandIn().eval()).save(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Path]:
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (3, 3, 20, 24), generator=draw, dtype=torch.uint8)
    folder = tmp_path_factory.mktemp("images")
    for index, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{index}.png")
    return pixels, folder


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_inception_s_features_are_clean_fid_s_folder_route(
    script: Path, images: tuple[Tensor, Path], mode: str, tmp_path: Path
) -> None:
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    pixels, folder = images
    network = InceptionV3W(
        str(script.parent), download=False, resize_inside=mode == "legacy_tensorflow"
    )
    theirs = fid.get_folder_features(
        str(folder), network, num_workers=0, device=torch.device("cpu"), mode=mode, verbose=False
    )
    extractor = load_inception(mode, 256, script)  # type: ignore[arg-type]
    ours = extractor.features(pixels, batch_size=2).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    save_extractor(extractor, tmp_path / "e.safetensors")
    loaded = load_extractor(tmp_path / "e.safetensors")
    assert torch.equal(loaded.features(pixels, batch_size=2), torch.from_numpy(ours))
    other = {"clean": "legacy_tensorflow", "legacy_tensorflow": "clean"}[mode]
    another = load_inception(other, 256, script)  # type: ignore[arg-type]
    assert not np.allclose(another.features(pixels).numpy(), theirs, rtol=1e-3)


def test_legacy_pytorch_calls_pytorch_fid_s_port_as_clean_fid_does(
    images: tuple[Tensor, Path], tmp_path: Path
) -> None:
    import torchvision
    from cleanfid import fid, inception_pytorch

    torch.manual_seed(2)
    with (
        mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value={}),
        mock.patch.object(torchvision.models.Inception3, "load_state_dict"),
    ):
        state = inception_pytorch.fid_inception_v3().state_dict()
    for weight in state.values():
        if weight.ndim == 4:  # a convolution's, or nothing comes through so many of them
            weight.mul_(6**0.5)
    path = tmp_path / "port.pth"
    torch.save(state, path)
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=state):
        network = inception_pytorch.InceptionV3([3], resize_input=False).eval()
    pixels, folder = images
    theirs = fid.get_folder_features(
        str(folder),
        lambda x: network(x / 255)[0].squeeze(-1).squeeze(-1),
        num_workers=0,
        device=torch.device("cpu"),
        mode="legacy_pytorch",
        verbose=False,
    )
    assert np.abs(theirs).mean() > 0.01
    assert theirs.std(axis=0).mean() > 1e-3
    extractor = load_inception("legacy_pytorch", 256, path)
    save_extractor(extractor, tmp_path / "e.safetensors")
    ours = load_extractor(tmp_path / "e.safetensors").features(pixels).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_grey_levels_reach_a_torchscript_as_a_png_s_colours(tmp_path: Path) -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 0, 0]

    torch.jit.script(Corner()).save(tmp_path / "corner.pt")
    extractor = TorchScript.read(tmp_path / "corner.pt", levels=17)
    pixels = torch.arange(17, dtype=torch.uint8).reshape(17, 1, 1, 1)
    expected = (torch.arange(17) * 255 / 16).round()[:, None].expand(-1, 3)
    assert torch.equal(extractor.features(pixels, batch_size=4), expected)
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 1\), allowed: 1 or 3 channels"):
        extractor.features(torch.zeros(1, 2, 1, 1, dtype=torch.uint8))


def test_a_broken_or_other_file_is_named(script: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(script.read_bytes()[:1000])
    for mode in ("clean", "legacy_pytorch"):
        with pytest.raises(ValueError, match=r"broken\.pt: damaged, or no (TorchScript|weights)"):
            load_inception(mode, 256, broken)  # type: ignore[arg-type]
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: a TorchScript module, but not Inception's"):
        load_inception("clean", 256, tmp_path / "other.pt")
    torch.jit.script(nn.Flatten(0)).save(tmp_path / "flat.pt")
    with pytest.raises(ValueError, match=r"returned shape \(96,\) for 2 images, allowed: \(2, D\)"):
        TorchScript.read(tmp_path / "flat.pt", 256).features(
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        )


def test_a_download_that_breaks_off_is_not_kept() -> None:
    """clean-fid would take the half file for the weights from then on."""
    asked = []

    def breaks_off(fpath: str) -> str:
        asked.append(Path(fpath))
        half = Path(fpath) / "inception-2015-12-05.pt"
        half.write_bytes(b"half")
        raise urllib.error.URLError("connection reset")

    with mock.patch("cleanfid.downloads_helper.check_download_inception", breaks_off):
        for _ in range(2):
            with pytest.raises(OSError, match="connection reset"):
                load_inception("clean", 256)
    assert len(asked) == 2
    assert not any(folder.exists() for folder in asked)
