"""Image sets in other code bases' formats: the same pixels from each, and one line for a wrong file."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from scoremodel.data.exchange import Form, ImageSet, fitted, read_images, write_images
from scoremodel.data.scale import quantise, to_unit
from scoremodel.data.sources.digits import load_digits

DRAW = np.random.default_rng(0)
COLOUR = DRAW.integers(0, 256, (500, 3, 6, 8), dtype=np.uint8)
GREY = DRAW.integers(0, 256, (500, 1, 6, 8), dtype=np.uint8)
LABELS = DRAW.integers(0, 4, 500)
NAMES = ["ant", "bee", "cat", "dog"]
FORMS: dict[Form, str] = {"npz": "a.npz", "folder": "a", "zip": "a.zip"}


def png(image: NDArray[np.uint8], **how: Any) -> bytes:
    out = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(out, "PNG", **how)
    return out.getvalue()


def npy(array: NDArray[Any], allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# What is read.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("x", [COLOUR, GREY], ids=["colour", "grey"])
def test_what_is_written_is_read_to_the_bit(form: Form, x: NDArray[Any], tmp_path: Path) -> None:
    path = tmp_path / FORMS[form]
    write_images(path, x, LABELS, NAMES, form)
    found = fitted(read_images(path), x.shape[1:], 256)
    np.testing.assert_array_equal(found.x, x)
    if form == "folder":  # folders by thousand, which say nothing of classes
        assert found.labels is None
    else:
        np.testing.assert_array_equal(found.labels, LABELS)
    assert found.classes == {"npz": list("0123"), "folder": [], "zip": NAMES}[form]


def test_other_writers_files_of_one_set_are_read_equal(tmp_path: Path) -> None:
    """As score_sde, EDM's data tool and a user with a loop would write the same images."""
    channels_last = COLOUR.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "samples.npz", samples=channels_last)
    np.savez_compressed(tmp_path / "adm.npz", channels_last, LABELS)
    np.savez(tmp_path / "first.npz", arr_0=COLOUR)
    np.save(tmp_path / "all.npy", channels_last)
    np.save(tmp_path / "whole.npy", channels_last.astype(np.int64))
    np.save(tmp_path / "unit.npy", (channels_last / 255).astype(np.float32))
    np.save(tmp_path / "symmetric.npy", to_unit_numpy(channels_last))
    names = [f"{number // 1000:05d}/img{number:08d}" for number in range(len(COLOUR))]
    onehot = np.eye(4)[LABELS].tolist()
    described = {"labels": [[f"{n}.png", one] for n, one in zip(names, onehot, strict=True)]}
    members = {f"{n}.png": png(one) for n, one in zip(names, COLOUR, strict=True)}
    zipped(tmp_path / "edm.zip", members | {"dataset.json": json.dumps(described).encode()})
    arrays = {f"{n}.npy": npy(one) for n, one in zip(names, COLOUR, strict=True)}
    zipped(tmp_path / "edm2.zip", arrays, zipfile.ZIP_DEFLATED)
    top = {f"set/{n}": content for n, content in members.items()}
    zipped(tmp_path / "top.zip", top | {"set/dataset.json": json.dumps(described).encode()})
    for name, content in members.items():
        place = tmp_path / "folder" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (tmp_path / "folder" / "dataset.json").write_text(json.dumps(described))
    for name in sorted(one.name for one in tmp_path.iterdir()):
        scale: Any = name.partition(".")[0]
        found = read_images(tmp_path / name, scale if scale in ("unit", "symmetric") else None)
        np.testing.assert_array_equal(found.x, COLOUR, err_msg=name)
        labelled = name in ("adm.npz", "edm.zip", "top.zip", "folder")
        assert (found.labels is None) is not labelled, name
        if found.labels is not None:
            np.testing.assert_array_equal(found.labels, LABELS)


def to_unit_numpy(pixels: NDArray[Any]) -> NDArray[Any]:
    import torch

    values: NDArray[Any] = to_unit(torch.from_numpy(pixels.copy()), 256).numpy()
    return values


def test_real_values_are_rounded_as_our_own_samples_are(tmp_path: Path) -> None:
    import torch

    x = 1.3 * torch.randn((20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).clamp(
        -1.4, 1.4
    )
    np.save(tmp_path / "x.npy", x.numpy())
    for levels in (17, 256):
        found = read_images(tmp_path / "x.npy", "symmetric", levels)
        np.testing.assert_array_equal(found.x, quantise(x, levels).numpy())
        share = float((x.abs() > 1).double().mean())
        assert any(f"{share:.2%} of the values lay out of [-1, 1]" in one for one in found.said)
        assert found.quantised
        assert not any("assumed" in one for one in fitted(found, (1, 4, 4), levels).said)


def test_sub_folders_are_classes_unless_they_count_by_thousand(tmp_path: Path) -> None:
    for name in ("cat/000001.png", "dog/000002.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png(GREY[0]))
    found = read_images(tmp_path)
    assert found.labels is not None
    assert (found.labels.tolist(), found.classes) == ([0, 1], ["cat", "dog"])
    x = np.zeros((1001, 1, 2, 2), np.uint8)
    x[1000] = 9
    write_images(tmp_path / "edm", x, form="folder")
    found = read_images(tmp_path / "edm")
    assert found.labels is None
    assert found.x[1000].tolist() == x[1000].tolist()
    assert "taken as no classes" in found.said[0]
    (tmp_path / "edm" / "001000" / "001000.png").rename(tmp_path / "edm" / "001000" / "x.png")
    assert read_images(tmp_path / "edm").classes == ["000000", "001000"]


def test_vectors_are_read_as_single_precision(tmp_path: Path) -> None:
    x = DRAW.standard_normal((9, 3))
    np.save(tmp_path / "y.npy", np.arange(9) % 2)
    np.save(tmp_path / "x.npy", x)
    found = read_images(tmp_path / "x.npy", labels_key="y.npy")
    np.testing.assert_array_equal(found.x, x.astype(np.float32))
    assert (found.levels, found.classes, found.said) == (
        None,
        ["0", "1"],
        ("float64 rounded to float32",),
    )
    assert fitted(found, (3,), None) is found
    with pytest.raises(
        ValueError, match=r"vectors of shape \(3,\), allowed: .*vectors of shape \(2,\)"
    ):
        fitted(found, (2,), None)


# What is written.


def test_files_are_laid_out_as_their_readers_look_for_them(tmp_path: Path) -> None:
    assert write_images(tmp_path / "a.npz", GREY, LABELS) == (
        "grey images: the channel is repeated to three",
    )
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(file["arr_0"], GREY.repeat(3, 1).transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(file["arr_1"], LABELS)
    write_images(tmp_path / "a", np.zeros((1001, 3, 2, 2), np.uint8), form="folder")
    files = sorted(path.relative_to(tmp_path / "a").as_posix() for path in tmp_path.glob("a/*/*"))
    assert (files[0], files[-1], len(files)) == ("000000/000000.png", "001000/001000.png", 1001)
    write_images(tmp_path / "a.zip", COLOUR, LABELS, form="zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        described = json.loads(archive.read("dataset.json"))
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert described["labels"][499] == ["000000/000499.png", int(LABELS[499])]


@pytest.mark.parametrize("form", ["npz", "zip"])
def test_the_same_images_are_the_same_bytes(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for year in (2001, 2031):
        monkeypatch.setattr("time.time", lambda year=year: (year - 1970) * 31_556_952.0)
        monkeypatch.setattr("time.localtime", lambda *_, year=year: (year, 2, 3, 4, 5, 6, 0, 34, 0))
        write_images(tmp_path / "a", GREY, LABELS, NAMES, form)
        digests.add(sha256((tmp_path / "a").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form, name in FORMS.items():
        write_images(tmp_path / name, GREY, form=form)
    before = [read_images(tmp_path / name).x for name in FORMS.values()]

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", failing)
    monkeypatch.setattr("numpy.lib.format.write_array", failing)
    for form, name in FORMS.items():
        with pytest.raises(OSError, match="No space left"):
            write_images(tmp_path / name, 255 - GREY, form=form)
    after = [read_images(tmp_path / name).x for name in FORMS.values()]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": GREY.astype(float)}, r"x: float64 of shape \(500, 1, 6, 8\) is not allowed"),
        ({"x": GREY[:, 0]}, r"allowed: uint8 \(N, C, H, W\) with C 1 or 3"),
        ({"x": GREY[:0]}, r"shape \(0, 1, 6, 8\) is not"),
        ({"levels": 17}, "levels: 17 is not allowed, .*highest grey level, 255"),
        ({"labels": LABELS[:4]}, r"labels: int64 of shape \(4,\) is not allowed"),
        ({"form": "pickle"}, "form: 'pickle' is not allowed, allowed: npz, folder, zip"),
    ],
)
def test_what_cannot_be_written_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        write_images(**{"path": tmp_path / "a", "x": GREY} | changes)
    assert not list(tmp_path.iterdir())


# What is made to fit.


@pytest.mark.parametrize("form", FORMS)
def test_digits_written_with_256_levels_come_back_exactly(form: Form, tmp_path: Path) -> None:
    digits = load_digits()
    path = tmp_path / FORMS[form]
    said = write_images(path, digits.x[:300], digits.labels[:300], digits.classes, form, levels=17)
    assert said[0] == "17 grey levels spread over 0 to 255"
    found = fitted(read_images(path), (1, 8, 8), 17)
    np.testing.assert_array_equal(found.x, digits.x[:300])
    assert found.said[-1] == "256 grey levels mapped to the data's 17, exactly"


@pytest.mark.parametrize("levels", range(2, 129))
def test_rounded_and_truncated_exports_of_few_levels_come_back_exactly(levels: int) -> None:
    grey = np.arange(levels, dtype=np.uint8).reshape(1, 1, 1, levels)
    for spread in (np.rint, np.floor):
        exported = spread(grey * (255 / (levels - 1))).astype(np.uint8)
        found = fitted(ImageSet(exported), (1, 1, levels), levels)
        np.testing.assert_array_equal(found.x, grey)


def test_values_between_the_data_s_levels_are_refused_unless_asked_for() -> None:
    x = np.array([0, 16, 40, 255], np.uint8).reshape(1, 1, 2, 2)
    with pytest.raises(
        ValueError, match=r"25\.0% of the values lie between the data's 17 grey levels"
    ):
        fitted(ImageSet(x), (1, 2, 2), 17)
    found = fitted(ImageSet(x), (1, 2, 2), 17, requantise=True)
    assert found.x.flatten().tolist() == [0, 1, 3, 16]  # 40 · 16 / 255 = 2.51
    assert "25.0% of the values lay between" in found.said[0]


def test_channels_are_repeated_or_taken_where_nothing_is_lost() -> None:
    found = fitted(ImageSet(GREY), (3, 6, 8), 256)
    np.testing.assert_array_equal(found.x, GREY.repeat(3, 1))
    assert "repeated to three" in found.said[0]
    np.testing.assert_array_equal(fitted(found, (1, 6, 8), 256).x, GREY)
    with pytest.raises(ValueError, match=r"colour images \(.*%.*channels: luma"):
        fitted(ImageSet(COLOUR), (1, 6, 8), 256)
    luma = fitted(ImageSet(COLOUR), (1, 6, 8), 256, channels="luma").x[:, 0].astype(float)
    exact = np.tensordot(COLOUR.astype(float), [0.299, 0.587, 0.114], (1, 0))
    assert np.abs(luma - exact).max() <= 0.5 + 0.002  # Pillow's weights are in 16 bits


def test_another_size_is_refused_or_resized_as_asked() -> None:
    with pytest.raises(
        ValueError, match=r"images of 8×6 pixels, the data have 4×3; allowed: .*resize"
    ):
        fitted(ImageSet(COLOUR), (3, 3, 4), 256)
    box = fitted(ImageSet(COLOUR), (3, 3, 4), 256, resize="box").x.astype(float)
    means = COLOUR.reshape(500, 3, 3, 2, 4, 2).mean(axis=(3, 5))
    assert np.abs(box - means).max() <= 1  # Pillow rounds after each axis
    assert fitted(ImageSet(GREY), (1, 3, 4), 17, resize="bicubic").x.max() <= 16
    with pytest.raises(ValueError, match="resize: 'nearest' is not allowed, allowed: box, bicubic"):
        fitted(ImageSet(COLOUR), (3, 3, 4), 256, resize="nearest")  # type: ignore[arg-type]


def test_what_is_not_known_of_the_writer_is_said() -> None:
    truncated = np.floor(DRAW.uniform(0, 255, (400, 1, 6, 8))).astype(np.uint8)
    assert abs(truncated.mean() - 127) < 1  # half a level below 127.5
    assert "assumed: the writer rounded" in fitted(ImageSet(truncated), (1, 6, 8), 256).said[-1]
    found = fitted(ImageSet(truncated), (1, 6, 8), 256, quantiser="truncated")
    np.testing.assert_array_equal(found.x, truncated)
    assert "cannot be restored" in found.said[-1]


# What is refused.

PNG = png(GREY[0])
ADM = npy(GREY.transpose(0, 2, 3, 1))


def content(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def members(
    name: str, *also: tuple[str, bytes], method: int = zipfile.ZIP_STORED
) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / name, dict(also), method)


def saved(name: str, **arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / name, **arrays)
        return folder / name

    return make


def changed(
    make: Callable[[Path], Path], change: Callable[[bytes], bytes]
) -> Callable[[Path], Path]:
    def remake(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return remake


def twice(folder: Path) -> Path:
    path = members("a.zip", ("a.png", PNG), ("b.png", PNG))(folder)
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    return path


def encrypted(data: bytes) -> bytes:
    """Set the flags of the one member's local and central headers."""
    out = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        out[out.index(mark) + place] |= 1
    return bytes(out)


def claiming(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


def labelled(labels: Any) -> Callable[[Path], Path]:
    described = json.dumps({"labels": labels}).encode()
    return members("a.zip", ("a.png", PNG), ("b.png", PNG), ("dataset.json", described))


class Armed:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was read",))


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "x.npz", "x.npz': No such file or directory, allowed: a folder of"),
    "name too long": (lambda folder: folder / ("x" * 5000), "name too long"),
    "empty folder": (lambda folder: folder, "no images"),
    "text": (content("a.txt", b"x"), r"a\.txt: '.txt' is no ending of image sets, allowed: a folder"),
    "pickle": (content("a.pkl", pickle.dumps(Armed())), r"a\.pkl: a pickle, which would run its code"),
    "pt": (content("a.pt", pickle.dumps(Armed())), r"a\.pt: a pickle, which would run"),
    "pickle as npz": (content("a.npz", pickle.dumps(Armed())), r"a\.npz: no readable zip archive"),
    "pickle as npy": (content("a.npy", pickle.dumps(Armed())), r"a\.npy: no NPY array"),
    "objects": (content("a.npy", npy(np.array([Armed()]), allow_pickle=True)), r"a\.npy: Python objects"),
    "objects in npz": (members("a.npz", ("arr_0.npy", npy(np.array([Armed()]), True))),
                       r"a\.npz: 'arr_0\.npy': Python objects"),
    "objects as labels": (members("a.npz", ("arr_0.npy", ADM), ("arr_1.npy", npy(np.array([Armed()]), True))),
                          r"'arr_1\.npy': Python objects"),
    "objects in zip": (members("a.zip", ("a.npy", npy(np.array([Armed()]), True))), r"'a\.npy': Python obj"),
    "no bytes": (content("a.npz", b""), r"a\.npz: no readable zip archive \(cut off or damaged\)"),
    "cut npz": (changed(saved("a.npz", arr_0=GREY), lambda data: data[:-40]), "cut off or damaged"),
    "npz with a hole": (changed(saved("a.npz", arr_0=GREY), lambda data: data[:9000] + data[9100:]),
                        "cut off or damaged"),
    "changed npz": (changed(saved("a.npz", arr_0=GREY), lambda data: data[:9000] + b"!" + data[9001:]),
                    r"'arr_0\.npy': cut off or damaged"),
    "cut npy": (content("a.npy", ADM[:-1]), r"cut off or damaged \(23,999 bytes of data, .* 24,000\)"),
    "long npy": (content("a.npy", ADM + b"x"), r"cut off or damaged \(24,001 bytes of data"),
    "claims much": (content("a.npy", claiming("(9999999999999, 9999999999999)")), "its header says 99,999,9"),
    "claims less than nothing": (content("a.npy", claiming("(-8, 8)")), "its header says -64"),
    "no header": (content("a.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000), "no NPY array"),
    "statistics": (saved("a.npz", mu=np.zeros(3), sigma=np.eye(3)), "holds statistics, not images"),
    "other keys": (saved("a.npz", images=GREY), "holds arrays 'images'; .* allowed: arr_0 or samples"),
    "both keys": (saved("a.npz", arr_0=GREY, samples=GREY), "arr_0 or samples, one of them"),
    "no arrays": (members("a.npz"), "holds arrays none"),
    "no images": (saved("a.npz", arr_0=COLOUR[:0]), r"shape \(0, 3, 6, 8\), allowed: .*not empty"),
    "one number": (saved("a.npz", arr_0=np.uint8(3), arr_1=LABELS), "allowed"),
    "channels": (saved("a.npz", arr_0=np.zeros((2, 8, 8, 4), np.uint8)), "allowed: 1 or 3 channels"),
    "which channels": (saved("a.npz", arr_0=np.zeros((2, 3, 8, 3), np.uint8)), "second axis may be the chan"),
    "text array": (saved("a.npz", arr_0=np.array([["a"]])), "array of type <U1, allowed: uint8 or real"),
    "booleans": (saved("a.npz", arr_0=GREY > 9), "array of type bool, allowed"),
    "fields": (saved("a.npz", arr_0=np.zeros(3, [("a", "u1")])), "array of type .*allowed: uint8"),
    "vectors of integers": (saved("a.npz", arr_0=GREY[:, 0, 0]), "vectors of type uint8, allowed: real"),
    "floats": (saved("a.npz", arr_0=GREY / 255), "float64 from 0 to 1, whose meaning is not said; .*unit f"),
    "NaN": (saved("a.npz", arr_0=np.full((2, 4, 4, 1), np.nan)), "2 of 2 hold a value that is not finite"),
    "16 bits": (saved("a.npz", arr_0=GREY.astype(np.uint16) * 257), "grey levels from 0 to 65535, allo"),
    "too few labels": (saved("a.npz", arr_0=COLOUR, arr_1=LABELS[:9]), "9 labels, allowed: one for each"),
    "labels of halves": (saved("a.npz", arr_0=COLOUR, arr_1=LABELS / 2), "labels of type float64 and shape"),
    "labels below 0": (saved("a.npz", arr_0=COLOUR, arr_1=LABELS - 1), "labels from -1 to 2, allowed: 0 to"),
    "soft labels": (saved("a.npz", arr_0=COLOUR, arr_1=np.full((500, 2), 0.5)), "that are not one-hot"),
    "huge labels": (saved("a.npz", arr_0=COLOUR, arr_1=LABELS + 10**9), "allowed: 0 to 65,535"),
    "no images in zip": (members("a.zip", ("a.txt", b"x")), "no images .allowed endings: .png"),
    "absolute": (members("a.zip", ("/etc/a.png", PNG)), "'/etc/a.png': a path out of the archive"),
    "upwards": (members("a.zip", ("x/../../a.png", PNG)), "a path out of the archive, allowed: relative"),
    "of Windows": (members("a.zip", ("C:/a.png", PNG)), "a path out of the archive"),
    "member twice": (twice, "'a.png': is there twice"),
    "encrypted": (changed(members("a.zip", ("a.png", PNG)), encrypted), "'a.png': encrypted, allowed: mem"),
    "compression": (members("a.zip", ("a.png", PNG), method=zipfile.ZIP_BZIP2), "compression 12, allowed:"),
    "bomb": (members("a.zip", ("a.npy", claiming(f"({2**40},)")), method=zipfile.ZIP_DEFLATED), "header say"),
    "damaged member": (changed(members("a.zip", ("a.png", PNG)), lambda data: data.replace(b"IDAT", b"IDAX")),
                       "'a.png': cut off or damaged"),
    "no PNG": (members("a.zip", ("a.png", b"hello")), r"a\.zip: 'a.png': not a readable image \(none of"),
    "broken PNG": (members("a.zip", ("a.png", PNG[:-20])), "'a.png': not a readable image .cut off or dama"),
    "transparent": (members("a.zip", ("a.png", png(GREY[0], transparency=3))), "'a.png': transparent pixels"),
    "sizes": (members("a.zip", ("a.png", PNG), ("b.png", png(GREY[0, :, :4]))),
              "'b.png': is 8×4 pixels but .*a.png.* is 8×6; all images must have one size"),
    "channels last in zip": (members("a.zip", ("a.npy", npy(COLOUR[0].transpose(1, 2, 0)))), "C 1 or 3"),
    "no JSON": (members("a.zip", ("a.png", PNG), ("dataset.json", b"{")), "dataset.json': no JSON"),
    "deep JSON": (members("a.zip", ("a.png", PNG), ("dataset.json", b"[" * 200_000)), "no JSON"),
    "labels of text": (labelled("ant"), r'allowed: {"labels": \[\[name, number'),
    "missing label": (labelled([["a.png", 1]]), "'b.png' has no label in it; allowed: one label for each"),
    "label of nothing": (labelled([["a.png", 1], ["b.png", 0], ["c.png", 1]]), "'c.png' has a label in it"),
    "mixed labels": (labelled([["a.png", 1], ["b.png", [0, 1]]]), "allowed: integers"),
    "true": (labelled([["a.png", True], ["b.png", False]]), "labels of type bool"),
    "beyond int64": (labelled([["a.png", 10**30], ["b.png", 0]]), "labels of type object"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, words = WRONG[case]
    path = make(tmp_path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_images(path)
    line = str(error.value)
    assert re.search(words, line), line
    assert line.isprintable()
    assert len(line) < 700
    assert line.lstrip("'").startswith(str(path)[:60])


def test_what_a_scale_does_not_fit_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    np.save(tmp_path / "b.npy", GREY.astype(np.float32))
    for name, scale, words in (
        ("a.npy", "unit", "uint8, grey levels, allowed: no scale, not 'unit'"),
        ("b.npy", "unit", r"values from 0 to 255 are far out of \[0, 1\], which scale unit says"),
        ("b.npy", "auto", "scale: 'auto' is not allowed, allowed: unit, symmetric, levels"),
    ):
        with pytest.raises(ValueError, match=words):
            read_images(tmp_path / name, scale)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_images(tmp_path / "b.npy", "levels").x, GREY)
    np.save(tmp_path / "c.npy", GREY / 255)
    assert "the scale is unit" in read_images(tmp_path / "c.npy", "symmetric").said[-1]
    with pytest.raises(ValueError, match="grey levels from 0 to 255, allowed: 0 to 16"):
        read_images(tmp_path / "a.npy", levels=17)


@pytest.mark.parametrize("form", ["npz", "zip"])
def test_damaged_bytes_are_a_line_or_the_same_pixels(form: Form, tmp_path: Path) -> None:
    """Zip's checksums say so; a byte that has none changes no pixel."""
    path, draw = tmp_path / FORMS[form], np.random.default_rng(2)
    write_images(path, COLOUR[:9], form=form)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_images(path)
        except ValueError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
            refused += 1
        else:
            kept = set(map(bytes, found.x))
            assert kept <= set(map(bytes, COLOUR[:9]))
            assert len(kept) == 9 or any("left aside" in one for one in found.said)
    assert refused > 100
