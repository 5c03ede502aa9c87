"""Image sets that are written here are the same pixels to others' own readers, and theirs to ours."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.exchange import Form, write_images
from scoremodel.data.sources.base import load_source

pytestmark = pytest.mark.parity

COUNT = 1003  # more than EDM puts into one folder
LEVELS = {1: 17, 3: 256}
NAMES: dict[Form, str] = {"folder": "set", "flat": "set", "zip": "set.zip", "npz": "set.npz"}


def images(channels: int) -> NDArray[np.uint8]:
    draw = np.random.default_rng(channels)
    return draw.integers(0, LEVELS[channels], (COUNT, channels, 5, 4), np.uint8)


def written(folder: Path, channels: int, form: Form) -> tuple[Path, NDArray[np.uint8]]:
    """Write images; return where, and what a reader of 8-bit RGB should find, (N, C, H, W)."""
    x = images(channels)
    write_images(folder / NAMES[form], x, form=form, levels=LEVELS[channels])
    grey = np.rint(x * (255 / (LEVELS[channels] - 1))).astype(np.uint8)
    return folder / NAMES[form], np.repeat(grey, 3 // channels, axis=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["folder", "flat", "zip"])
def test_clean_fid_reads_the_same_pixels(form: Form, channels: int, tmp_path: Path) -> None:
    """By its own search and loader; its resizing is left out, and the features are the pixels."""
    fid = pytest.importorskip("cleanfid.fid")
    path, x = written(tmp_path, channels, form)
    found = fid.get_folder_features(
        str(path),
        model=lambda batch: batch.flatten(1),
        mode="legacy_tensorflow",
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    if form == "zip":  # whose members it takes in no order
        found, x = np.sort(found, axis=0), np.sort(x.reshape(COUNT, -1), axis=0)
    np.testing.assert_array_equal(found, x.reshape(COUNT, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_pytorch_fid_reads_the_same_pixels_of_a_flat_folder(channels: int, tmp_path: Path) -> None:
    """It looks into no sub-folder."""
    theirs = pytest.importorskip("pytorch_fid.fid_score")
    path, x = written(tmp_path, channels, "flat")

    class Pixels(torch.nn.Module):
        """Features that are pixels, as its network gives them: (N, D, 1, 1) in a list."""

        def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
            return [(batch.double() * 255).round().flatten(1)[..., None, None]]

    mean, covariance = theirs.compute_statistics_of_path(
        str(path), Pixels(), batch_size=50, dims=60, device="cpu", num_workers=0
    )
    flat = x.reshape(COUNT, -1).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(flat, rowvar=False), rtol=1e-10, atol=1e-9)
    listed = theirs.ImagePathDataset(sorted(path.glob("*.png")))
    np.testing.assert_array_equal(
        np.stack([np.asarray(one).transpose(2, 0, 1) for one in listed]), x
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["folder", "flat"])
def test_torch_fidelity_reads_the_same_pixels(form: Form, channels: int, tmp_path: Path) -> None:
    theirs = pytest.importorskip("torch_fidelity.utils")
    path, x = written(tmp_path, channels, form)
    found = theirs.prepare_input_from_id(
        1, input1=str(path), samples_find_deep=form == "folder", verbose=False
    )
    np.testing.assert_array_equal(torch.stack(list(found)), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_npz_is_what_adm_s_evaluator_asks_for(channels: int, tmp_path: Path) -> None:
    """It takes `arr_0` from the zip by name: uint8 with three channels, last."""
    path, x = written(tmp_path, channels, "npz")
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as file:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        rows = np.frombuffer(file.read(), np.uint8).reshape(shape)
    assert (version, fortran, dtype) == ((1, 0), False, np.uint8)
    np.testing.assert_array_equal(rows, x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("way", ["saved", "dictionary", "parquet"])
def test_what_datasets_writes_is_read_as_datasets_reads_it(way: str, tmp_path: Path) -> None:
    """With its filters and shards; the peer's own images and classes, row by row."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    x = images(3)[:30]
    labels = np.arange(30) % 3
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "cow"])}
    )
    pictures = [Image.fromarray(one.transpose(1, 2, 0)) for one in x]
    whole = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    whole = whole.select(range(29, 4, -1))  # by an index that no file has
    said: dict[str, Any] = {"kind": "huggingface", "path": "set"}
    if way == "saved":
        whole.save_to_disk(tmp_path / "set", num_shards=3)
        theirs = list(datasets.load_from_disk(str(tmp_path / "set")))
    elif way == "dictionary":
        parts = {"train": whole.select(range(20)), "test": whole.select(range(20, 25))}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
        both = datasets.load_from_disk(str(tmp_path / "set"))
        theirs = [*both["train"], *both["test"]]
    else:
        whole.to_parquet(tmp_path / "set/train-00000-of-00001.parquet")
        theirs = list(whole)
    raw = load_source(said, folder=tmp_path)
    np.testing.assert_array_equal(
        raw.x, [np.asarray(row["image"]).transpose(2, 0, 1) for row in theirs]
    )
    np.testing.assert_array_equal(raw.x, x[29:4:-1])
    assert raw.labels is not None
    assert raw.labels.tolist() == [row["label"] for row in theirs]
    assert raw.classes == ["cat", "dog", "cow"]
    held_out = [False] * 20 + [True] * 5 if way == "dictionary" else None
    assert (None if raw.held_out is None else raw.held_out.tolist()) == held_out
