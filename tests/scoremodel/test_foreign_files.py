"""Image sets as others may have packed them: what is damaged or means two things is a line, never a guess."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.exchange import ImageSet, fitted, read_images, write_images

DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (30, 3, 6, 8), dtype=np.uint8)
LABELS = DRAW.integers(0, 4, 30)


def png(image: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, "PNG")
    return out.getvalue()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


PNG = png(X[0])
NAMES = [f"{number // 1000:05}/img{number:08}" for number in range(len(X))]


def described(labels: Any) -> bytes:
    return json.dumps({"labels": labels}).encode()


def test_one_set_is_the_same_from_whoever_packed_it(tmp_path: Path) -> None:
    """As score_sde, ADM, EDM's data tool, `zip -r`, and a user with numpy would write it."""
    last = X.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "samples.npz", samples=last)
    np.savez_compressed(tmp_path / "adm.npz", last, LABELS)
    np.savez(tmp_path / "first.npz", arr_0=X)
    np.save(tmp_path / "whole.npy", last.astype(np.int64))
    np.save(tmp_path / "unit.npy", (last / 255).astype(np.float32))
    np.save(tmp_path / "symmetric.npy", last / 127.5 - 1)
    images = {f"{name}.png": png(one) for name, one in zip(NAMES, X, strict=True)}
    onehot = np.eye(4)[LABELS].tolist()
    listing = described([[f"{n}.png", one] for n, one in zip(NAMES, onehot, strict=True)])
    packed(tmp_path / "edm.zip", images | {"dataset.json": listing})
    whole = {f"set/{name}": content for name, content in images.items()}
    packed(tmp_path / "inside.zip", whole | {"set/dataset.json": listing})
    arrays = {f"{name}.npy": npy(one) for name, one in zip(NAMES, X, strict=True)}
    packed(tmp_path / "edm2.zip", arrays, zipfile.ZIP_DEFLATED)
    for name, content in (images | {"dataset.json": listing}).items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    for path in sorted(tmp_path.iterdir()):
        scale: Any = path.stem if path.stem in ("unit", "symmetric") else None
        found = fitted(read_images(path, scale), X.shape[1:], 256)
        np.testing.assert_array_equal(found.x, X, err_msg=path.name)
        labelled = path.name in ("adm.npz", "edm.zip", "inside.zip", "folder")
        assert (found.labels is not None) is labelled, path.name
        if found.labels is not None:
            np.testing.assert_array_equal(found.labels, LABELS)


def test_folders_by_thousand_are_no_classes_and_an_archive_s_folders_are_said(
    tmp_path: Path,
) -> None:
    for names in (("000000/000999", "001000/001000"), ("00000/img00000999", "00001/img00001000")):
        folder = tmp_path / f"set of {len(names[0])}"
        for name in names:
            (folder / name).parent.mkdir(parents=True)
            (folder / f"{name}.png").write_bytes(PNG)
        found = read_images(folder)
        assert found.labels is None
        assert "no classes" in found.said[0]
        (folder / f"{names[0]}.png").rename(folder / names[0].replace("999", "000.png"))
        assert read_images(folder).labels is None
        (folder / f"{names[1]}.png").rename((folder / names[1]).with_name("x.png"))
        assert read_images(folder).classes == tuple(name.split("/")[0] for name in names)
        there = packed(tmp_path / "a.zip", {f"{name}.png": PNG for name in names})
        assert read_images(there).said == ()
    found = read_images(packed(tmp_path / "b.zip", {"cat/a.png": PNG, "dog/b.png": PNG}))
    assert found.said == ("no dataset.json: the folders of an archive are taken as no classes",)


@pytest.mark.parametrize("levels", range(2, 129))
def test_rounded_and_truncated_exports_of_few_levels_come_back_exactly(levels: int) -> None:
    grey = np.arange(levels, dtype=np.uint8).reshape(1, 1, 1, levels)
    for writer, spread in (("rounded", np.rint), ("truncated", np.floor)):
        exported = spread(grey * (255 / (levels - 1))).astype(np.uint8)
        for quantiser in (None, writer):
            found = fitted(ImageSet(exported), (1, 1, levels), levels, quantiser=quantiser)  # type: ignore[arg-type]
            np.testing.assert_array_equal(found.x, grey)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.npz")
    return folder / "a.npz"


def archive(*members: tuple[str, bytes]) -> Callable[[Path], Path]:
    return lambda folder: packed(folder / "a.zip", dict(members))


def twice(folder: Path) -> Path:
    path = packed(folder / "a.zip", {"a.png": PNG, "b.png": PNG})
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    return path


def array(values: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / "a.npy", values)
        return folder / "a.npy"

    return make


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a FIFO, which would not end": (fifo, r"a\.npz: neither file nor folder"),
    "a name too long": (lambda folder: folder / ("x" * 5000), "cannot be read .File name too long"),
    "one number": (array(np.float64(3)), r"a\.npy: float64 of shape \(\), allowed: numbers"),
    "beyond single precision": (array(np.full((2, 2), 1e300)), "values beyond single precision, allowed"),
    "an absolute path": (archive(("/etc/a.png", PNG)), "'/etc/a.png': a path out of the archive"),
    "a path upwards": (archive(("x/../../a.png", PNG)), "a path out of the archive, allowed: relative"),
    "a member twice": (twice, "'a.png': is there twice, allowed: once"),
    "a label of nothing": (archive(("a.png", PNG), ("dataset.json", described([["a.png", 1], ["b.png", 0]]))),
                           "dataset.json: 'b.png' has a label and is not there"),
    "two lists of labels": (archive(("a/a.png", PNG), ("a/dataset.json", b"{}"), ("dataset.json", b"{}")),
                            "2 files dataset.json, allowed: one"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_set_of_images_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, words = WRONG[case]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=words) as error:
        read_images(path)
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 700
    assert line.lstrip("'").startswith(str(path)[:60])


@pytest.mark.parametrize("name", ["a.npz", "a.zip"])
def test_what_unpacks_to_more_than_memory_is_not_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = np.zeros((1, 3, 300, 1000), np.int64)  # of grey levels a zip is read by the image
    packed(
        tmp_path / name,
        {"arr_0.npy": npy(zeros if name == "a.npz" else zeros[0])},
        zipfile.ZIP_DEFLATED,
    )
    assert (tmp_path / name).stat().st_size < 10_000
    assert read_images(tmp_path / name).x.nbytes == 900_000
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    with pytest.raises(
        ValueError, match=rf"{re.escape(name)}: 0\.0 GiB when it is unpacked, allowed: half"
    ):
        read_images(tmp_path / name)


@pytest.mark.parametrize("form", ["npz", "zip"])
def test_damaged_bytes_are_a_line_or_the_same_pixels(form: Any, tmp_path: Path) -> None:
    """Zip's checksums say so; a byte that has none changes no pixel."""
    path, draw = tmp_path / f"a.{form}", np.random.default_rng(2)
    write_images(path, X[:9], form=form)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        line, found = None, None
        try:
            found = read_images(path)
        except ValueError as error:
            line = str(error)
        if found is None:
            assert line is not None
            assert line.startswith(str(path))
            assert line.isprintable()
            refused += 1
        else:
            assert set(map(bytes, found.x)) <= set(map(bytes, X[:9]))
    assert refused > 100
