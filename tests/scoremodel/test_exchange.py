"""Image sets in other code bases' files: equal to the bit whatever the file, nothing guessed in silence."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from scoremodel.data.exchange import (
    ImageSet,
    fitted,
    read_images,
    read_sets,
    write_images,
)

FORMS = {"npz": "set.npz", "folder": "set", "flat": "set", "zip": "set.zip"}


def digits(count: int = 500) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return digits of 17 grey levels, and their classes."""
    data = load_digits()
    return data.images[:count, None].astype(np.uint8), data.target[:count].astype(np.int64)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_same_images_as_folder_npz_and_zip_are_equal_to_the_bit(
    tmp_path: Path, labelled: bool
) -> None:
    x, labels = digits()
    hashes = set()
    for form, name in FORMS.items():
        write_images(tmp_path / name, x, labels if labelled else None, form=form, levels=17)  # type: ignore[arg-type]
        found = fitted(read_images(tmp_path / name), (1, 8, 8), 17)
        np.testing.assert_array_equal(found.x, x)
        if labelled:
            np.testing.assert_array_equal(found.labels, labels)
        else:
            assert found.labels is None
        hashes.add(found.sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("form", FORMS)
def test_colour_images_come_back(tmp_path: Path, form: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (1100, 3, 5, 4), np.uint8)
    path = tmp_path / FORMS[form]
    write_images(path, x, form=form)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_images(path).x, x)
    first = path.read_bytes() if path.is_file() else b""
    write_images(path, x, form=form)  # type: ignore[arg-type]
    assert not path.is_file() or path.read_bytes() == first


def test_folders_of_classes_are_classes_and_folders_by_thousand_are_none(tmp_path: Path) -> None:
    x, _ = digits(3)
    for folder in ("cat", "dog"):
        write_images(tmp_path / "classes" / folder, x, form="folder", levels=17)
    for folder in ("cat", "dog"):  # as people lay them out
        for path in (tmp_path / "classes" / folder).rglob("*.png"):
            path.rename(tmp_path / "classes" / folder / path.name)
        (tmp_path / "classes" / folder / "000000").rmdir()
    found = read_images(tmp_path / "classes")
    assert found.classes == ("cat", "dog")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_score_sde_s_and_numpy_s_own_files(tmp_path: Path) -> None:
    x, labels = digits(20)
    big = np.rint(x * (255 / 16)).astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "samples_0.npz", samples=big)
    np.save(tmp_path / "a.npy", big[..., 0])
    np.save(tmp_path / "b.npy", (big / 255).astype(np.float64))
    for name, scale in (("samples_0.npz", None), ("a.npy", None), ("b.npy", "unit")):
        found = fitted(read_images(tmp_path / name, scale), (1, 8, 8), 17)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.x, x)
    vectors = np.random.default_rng(0).standard_normal((9, 2))
    np.savez(tmp_path / "points.npz", arr_0=vectors)
    np.testing.assert_array_equal(
        fitted(read_images(tmp_path / "points.npz"), (2,), None).x, vectors.astype(np.float32)
    )
    np.savez(tmp_path / "labelled.npz", arr_0=big, arr_1=labels)
    np.testing.assert_array_equal(read_images(tmp_path / "labelled.npz").labels, labels)


def test_a_zip_of_npy_and_one_hot_labels_is_edm_s(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 6), np.uint8)
    listed = [[f"{i}.npy", [float(i % 2), float(1 - i % 2)]] for i in range(4)]
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, one in enumerate(x):
            np.save(tmp_path / "one.npy", one)
            archive.write(tmp_path / "one.npy", f"{i}.npy")
        archive.writestr("dataset.json", json.dumps({"labels": listed}))
    found = read_images(tmp_path / "set.zip")
    np.testing.assert_array_equal(found.x, x)
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1, 0]


def test_a_zip_is_read_as_a_folder_of_the_same_images_is(tmp_path: Path) -> None:
    """Colour if one image is, any kind of image, and sizes of which arrays would not be clear."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(draw.integers(0, 256, (3, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(draw.integers(0, 256, (3, 3, 3), np.uint8)).save(folder / "b.bmp")
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    found = read_images(tmp_path / "set.zip")
    assert found.x.shape == (2, 3, 3, 3)
    assert found.sha256 == read_images(folder).sha256


def test_damaged_bytes_of_a_zip_are_never_other_pixels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), np.uint8)
    path = tmp_path / "set.zip"
    for deflated in (False, True):
        write_images(path, x, form="zip")
        if deflated:
            with zipfile.ZipFile(path) as old:
                members = {name: old.read(name) for name in old.namelist()}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, one in members.items():
                    archive.writestr(name, one)
        content, draw, lines = path.read_bytes(), np.random.default_rng(1), []
        for _ in range(150):
            damaged = bytearray(content)
            damaged[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
            path.write_bytes(damaged)
            try:
                found = read_images(path).x
            except ValueError as error:
                lines.append(str(error))
            else:
                assert set(map(bytes, found)) <= set(map(bytes, x))  # a name may be another
        assert len(lines) > 60
        assert all("set.zip" in line and "\n" not in line for line in lines)


def test_a_folder_of_files_is_one_set_each(tmp_path: Path) -> None:
    x, _ = digits(20)
    for seed in (1, 0):
        write_images(tmp_path / f"seed_{seed}.npz", x[10 * seed : 10 * seed + 10], levels=17)
    found = read_sets(tmp_path)
    assert list(found) == ["seed_0", "seed_1"]
    np.testing.assert_array_equal(fitted(found["seed_1"], (1, 8, 8), 17).x, x[10:])


def test_what_is_done_to_a_set_is_said() -> None:
    grey = ImageSet(np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), np.uint8))
    found = fitted(grey, (3, 4, 4), 256, quantiser="rounded")
    np.testing.assert_array_equal(found.x[:, 2], grey.x[:, 0])
    assert found.said == ("grey images repeated to the data's 3 channels",)
    back = fitted(found, (1, 4, 4), 256)
    np.testing.assert_array_equal(back.x, grey.x)
    assert "rounded" in back.said[-1]
    colours = ImageSet(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="3 channels that differ for data of 1, allowed: grey"):
        fitted(colours, (1, 8, 8), 256)
    pillow = np.asarray(Image.fromarray(colours.x[0].transpose(1, 2, 0)).convert("L"))
    made = fitted(colours, (1, 8, 8), 256, grey=True).x[0, 0]
    assert np.abs(made.astype(int) - pillow).max() <= 1  # Pillow's integers round otherwise
    with pytest.raises(
        ValueError, match="8×8 pixels for data of 4×4, allowed: that size, or resize"
    ):
        fitted(colours, (3, 4, 4), 256)
    small = fitted(colours, (3, 4, 4), 256, resize="box")
    mean = colours.x.reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    assert np.abs(small.x - mean).max() <= 1  # Pillow rounds after rows and after columns
    assert any("box" in line for line in small.said)


def test_truncated_grey_levels_of_few_are_found_again() -> None:
    x, _ = digits(50)
    unit = x / 16
    truncated = ImageSet(np.floor(unit * 255).astype(np.uint8))
    np.testing.assert_array_equal(fitted(truncated, (1, 8, 8), 17, quantiser="truncated").x, x)
    assert fitted(ImageSet(x), (1, 8, 8), 17).said == (
        "values up to 16 taken as the data's own 17 grey levels",
    )


class _Runs:
    """What leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def _wrong(folder: Path) -> dict[str, str]:
    """Return name → what is said of it."""
    trace = _Runs(folder / "ran")
    (folder / "a.pkl").write_bytes(pickle.dumps(trace))
    np.save(folder / "b.npy", np.array([trace], object), allow_pickle=True)
    np.savez(folder / "c.npz", arr_0=np.array([trace], object))
    (folder / "d.npz").write_bytes(pickle.dumps(trace))
    np.savez(folder / "e.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    whole = (folder / "e.npz").read_bytes()
    (folder / "e.npz").write_bytes(whole[: len(whole) // 2])
    np.save(folder / "f.npy", np.zeros((4, 8, 8, 1)))
    np.save(folder / "g.npy", np.full((4, 8, 8, 1), np.nan))
    np.save(folder / "h.npy", np.zeros((4, 3, 3, 3), np.uint8))
    np.save(folder / "i.npy", np.zeros((4, 8, 8, 2), np.uint8))
    np.save(folder / "j.npy", np.full((4, 8, 8, 1), 256, np.int32))
    np.save(folder / "k.npy", np.zeros((0, 8, 8, 1), np.uint8))
    np.savez(folder / "l.npz", a=np.zeros(1), b=np.zeros(1))
    np.savez(folder / "m.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8), arr_1=np.zeros(3, int))
    write_images(folder / "n.zip", np.zeros((2, 1, 8, 8), np.uint8), form="zip")
    with zipfile.ZipFile(folder / "n.zip", "a") as archive:
        archive.writestr("z.png", b"no image")
    with zipfile.ZipFile(folder / "o.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    (folder / "p.zip").write_bytes(b"no zip")
    for name, kinds in (("t.zip", (np.uint8, np.int64)), ("u.zip", (np.uint8,))):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for number, kind in enumerate(kinds):
                content = io.BytesIO()
                np.save(content, np.zeros((1, 8, 8), kind))
                archive.writestr(f"{number}.npy", content.getvalue())
            if name == "u.zip":
                archive.writestr("z.png", b"")
    (folder / "q.txt").touch()
    (folder / "r").mkdir()
    return {
        "a.pkl": "a pickle, which would run its code",
        "b.npy": "holds pickled objects",
        "c.npz": "holds pickled objects",
        "d.npz": "holds pickled objects",
        "e.npz": "cut off or damaged",
        "f.npy": "real values from 0 to 0, whose range is not said, allowed: scale unit",
        "g.npy": "4 of 4 hold a value that is not finite",
        "h.npy": "may be (N, H, W, C) or (N, C, H, W)",
        "i.npy": "shape (4, 8, 8, 2), allowed",
        "j.npy": "grey levels from 256 to 256, allowed: 0 to 255",
        "k.npy": "allowed: numbers, at least one",
        "l.npz": "holds 'a, b', allowed: images as arr_0 or samples",
        "m.npz": "allowed: a class number for each of the 4 images",
        "n.zip": "not a readable image",
        "o.zip": "no images, allowed: PNG or NPY",
        "p.zip": "not a readable zip",
        "t.zip": "'1.npy' is int64 of shape (1, 8, 8) and '0.npy' uint8",
        "u.zip": "images beside NPY, allowed: the one or the other",
        "q.txt": "of an unknown kind, allowed",
        "r": "no images",
        "s": "no such file or folder",
    }


def test_wrong_files_get_one_line_that_names_them_and_no_pickle_is_read(tmp_path: Path) -> None:
    for name, said in _wrong(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            read_images(tmp_path / name)
        line = str(caught.value)
        assert said in line
        assert name in line
        assert "\n" not in line
    assert not (tmp_path / "ran").exists()
