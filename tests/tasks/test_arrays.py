"""Data that are larger than memory are written, and trained on, a few rows at a time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scoremodel.data.exchange import write_images
from tasks.files.arrays import read_rows, write_rows
from tests.workspace import ROOT

TRAIN = r"""
import re, sys, torch
from pathlib import Path
from scoremodel.denoiser import Denoiser
from scoremodel.processes.vp import VP
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from tasks.files.arrays import read_rows
data = torch.from_numpy(read_rows(Path(sys.argv[1]))["train"])
denoiser = Denoiser({"kind": "unet", "width": 8}, VP(), data.shape[1:], [0.0] * 3, 0.5, 256)
train(denoiser, data, TrainingConfig(steps=3, batch_size=8), 0)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""

PREPARE = r"""
import re, sys
from pathlib import Path
import scoremodel.io.mapped
from tasks.files.layout import Configuration
from tasks.prepare import main
scoremodel.io.mapped._PIECE = 2**20
for name in sys.argv[1:]:
    main(Configuration(name))
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(int(peak[1]) >> 10, file=sys.stderr)
"""


def peak_mib(folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_rows_come_back_as_they_were_chosen(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(50)
    rows = np.array([7, 3, 49, 0])
    digest = write_rows(tmp_path, {"train": (x, rows), "train_labels": (labels, rows)})
    expected = hashlib.sha256()
    for name, array in (("train", x[rows]), ("train_labels", labels[rows])):
        expected.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    assert digest == expected.hexdigest()
    found = read_rows(tmp_path)
    assert np.array_equal(found["train"], x[rows])
    assert found["train_labels"].tolist() == rows.tolist()
    write_rows(tmp_path, {"train": (x, rows)})  # another source, without labels
    assert set(read_rows(tmp_path)) == {"train"}


def test_damaged_or_missing_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data; run dvc repro"):
        read_rows(tmp_path)
    write_rows(tmp_path, {"train": (np.zeros((100, 2), np.float32), np.arange(100))})
    path = tmp_path / "train.npy"
    for content in (path.read_bytes()[:-10], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.npy: damaged"):
            read_rows(tmp_path)


def test_training_reads_of_a_mapped_file_what_it_uses(tmp_path: Path) -> None:
    """A GiB of (sparse) images raises the peak memory of three steps by less than a tenth of it."""
    for name, count in (("small", 16), ("large", 2**30 // (3 * 32 * 32))):
        (tmp_path / name).mkdir()
        np.lib.format.open_memmap(tmp_path / name / "train.npy", "w+", np.uint8, (count, 3, 32, 32))
    assert peak_mib(tmp_path / "large") - peak_mib(tmp_path / "small") < 100


def test_preparing_takes_no_more_memory_of_more_images(tmp_path: Path) -> None:
    """25 MB of pixels, from a folder and from a zip, raise the peak of 1 MB of them by less than half."""
    draw = np.random.default_rng(0)
    resolved = tmp_path / "artifacts/resolved/datasets"
    resolved.mkdir(parents=True)
    names = []
    for size, count in (("few", 100), ("many", 2000)):
        for form in ("folder", "zip"):
            name = f"{size}_{form}"
            raw = tmp_path / "data/raw" / name
            raw.mkdir(parents=True)
            resolved.joinpath(f"{name}.json").write_text(
                '{"gives": "images", "held_out": 0.1, "seed": 0}'
            )
            x = draw.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
            if form == "zip":
                (raw / "source.yaml").write_text("{kind: archive, path: images.zip}")
            write_images(raw / ("images.zip" if form == "zip" else "images"), x, form=form)
            names.append(name)
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, *names],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    few_folder, few_zip, many_folder, many_zip = map(int, done.stderr.split())
    assert many_folder - few_zip < 12
    assert many_zip - few_zip < 12
    assert few_folder > 50  # the peak was read
