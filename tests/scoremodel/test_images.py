"""Images as others read them: names, classes, grey levels, and the same bytes every time."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoremodel.io.images import write_images

PIXELS = np.random.default_rng(0).integers(0, 256, (1003, 3, 4, 5), dtype=np.uint8)
LABELS = np.arange(1003) % 7


def test_three_channels_and_classes_in_all_forms(tmp_path: Path) -> None:
    for form in ("npz", "folder", "zip"):
        write_images(tmp_path / form, PIXELS, LABELS, form)  # type: ignore[arg-type]
    with np.load(tmp_path / "npz") as found:
        assert np.array_equal(found["arr_0"].transpose(0, 3, 1, 2), PIXELS)
        assert np.array_equal(found["arr_1"], LABELS)
    last = np.asarray(Image.open(tmp_path / "folder/001000/001002.png"))
    assert np.array_equal(last.transpose(2, 0, 1), PIXELS[1002])
    with zipfile.ZipFile(tmp_path / "zip") as archive:
        classes = dict(json.loads(archive.read("dataset.json"))["labels"])
        first = np.asarray(Image.open(io.BytesIO(archive.read("000000/000999.png"))))
    assert np.array_equal(first.transpose(2, 0, 1), PIXELS[999])
    assert classes["001000/001002.png"] == 1002 % 7
    assert json.loads((tmp_path / "folder/dataset.json").read_text())["labels"][1] == [
        "000000/000001.png",
        1,
    ]


@pytest.mark.parametrize("form", ["npz", "zip"])
def test_the_bytes_repeat(tmp_path: Path, form: str) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, PIXELS[:20], LABELS[:20], form)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("levels", [2, 17, 100, 256])
def test_every_grey_level_comes_back(tmp_path: Path, levels: int) -> None:
    x = np.arange(levels, dtype=np.uint8).reshape(levels, 1, 1, 1)
    write_images(tmp_path / "x.npz", x, levels=levels)
    with np.load(tmp_path / "x.npz") as found:
        written = found["arr_0"][:, 0, 0]
    assert (written == written[:, :1]).all()
    assert (written[0, 0], written[-1, 0]) == (0, 255)
    assert np.array_equal(np.round(written[:, 0] * ((levels - 1) / 255)), x.ravel())


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for x in (PIXELS.astype(np.float32), PIXELS[:, :2], PIXELS[0], PIXELS[:0]):
        with pytest.raises(ValueError, match=r"is not allowed, allowed: uint8 \(N, C, H, W\)"):
            write_images(tmp_path / "x", x)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
