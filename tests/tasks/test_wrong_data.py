"""Data that are wrong: one line that names the file, before any work; and what must come out right."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tasks.prepare
from scoremodel.data.sources.base import SOURCES, RawData, load_source
from scoremodel.data.sources.folder import load_folder
from tasks.files.arrays import read_rows
from tasks.files.layout import Configuration
from tasks.params.errors import ParamsError
from tasks.params.resolve import source_of
from tasks.prepare import card_of, main, read_source, split

SIZE = (4, 6)  # width and height
RAMP = np.arange(24, dtype=np.uint8).reshape(6, 4)
ORIENTATION = 0x0112

Make = Callable[[Path], object]


def png(path: Path, value: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Write a grey image of one value but for its first pixel, so that values tell images apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], value, np.uint8)
    pixels[0, 0] = 255 - value
    Image.fromarray(pixels).save(path)
    return path


def saved(name: str, image: Image.Image, **how: Any) -> Make:
    """Return what writes an image beside a right one."""

    def make(folder: Path) -> None:
        png(folder / "right.png")
        image.save(folder / name, **how)

    return make


def written(name: str, content: bytes) -> Make:
    """Return what writes bytes beside a right image."""

    def make(folder: Path) -> None:
        png(folder / "right.png")
        (folder / name).write_bytes(content)

    return make


def laid(*names: str, then: Make = lambda _: None) -> Make:
    """Return what lays out images and then does something else."""

    def make(folder: Path) -> None:
        for number, name in enumerate(names):
            png(folder / name, number)
        then(folder)

    return make


def link(name: str, target: str) -> Make:
    """Return what makes a link in the folder."""
    return lambda folder: (folder / name).symlink_to(target)


def text(name: str, content: str = "") -> Make:
    """Return what writes a text."""
    return lambda folder: (folder / name).write_text(content)


def fifo(name: str) -> Make:
    """Return what makes a FIFO."""
    return lambda folder: os.mkfifo(folder / name)


def inside(name: str) -> Make:
    """Return what makes a folder in the folder."""
    return lambda folder: (folder / name).mkdir()


def all_of(*steps: Make) -> Make:
    """Return what does one thing after the other."""
    return lambda folder: [step(folder) for step in steps]


def bound_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path has at most 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("x.png")
    finally:
        os.chdir(here)


def chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bare_png(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes) -> bytes:
    """Return a PNG file of exactly these parts."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        *more,
        chunk(b"IDAT", zlib.compress(data)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


GREY = Image.fromarray(RAMP)
COLOUR = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(6, 4, 3))
OTHER = Image.fromarray(255 - RAMP)
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [OTHER, GREY]}
SIXTEEN_GREY = Image.fromarray(RAMP.astype(np.uint16) * 300)
SIXTEEN_RGB = bare_png(4, 6, 16, 2, (b"\0" + bytes(24)) * 6)
PALETTE = COLOUR.convert("P")
FIRST = int(np.asarray(PALETTE)[0, 0])
BROKEN_PNG = bytearray(encoded(GREY, "PNG"))
BROKEN_PNG[-20] ^= 1  # in the checksum of its pixels

FOLDERS: dict[str, tuple[Make, str]] = {
    "empty": (lambda _: None, "no images"),
    "no image among files": (text("a.txt", "x"), "no images"),
    "only hidden images": (laid(".a.png", ".git/b.png"), "no images"),
    "only __MACOSX": (laid("__MACOSX/a.png"), "no images"),
    "beside classes": (laid("a.png", "cat/b.png", "dog/c.png"), r"a\.png: .*such as .*cat/b\.png"),
    "splits": (laid("train/cat/a.png", "test/cat/a.png"), r"test/cat/a\.png: lies deeper"),
    "deeper": (laid("cat/a.png", "dog/old/b.png"), r"dog/old/b\.png: lies deeper than one folder"),
    "both depths": (laid("cat/a.png", "cat/old/b.png"), r"cat/a\.png: lies beside .*old/b\.png"),
    "empty class": (laid("cat/a.png", "dog/b.png", then=inside("cow")), "cow: no im"),
    "one class and an empty one": (laid("cat/a.png", then=inside("dog")), "dog: no i"),
    "loop": (laid("cat/a.png", "dog/b.png", then=link("cat/loop", "..")), "loop: is the same folder"),
    "loop of links": (laid("a.png", then=link("l.png", "l.png")), r"l\.png: leads to no file"),
    "class twice": (laid("cat/a.png", then=link("dog", "cat")), "is the same folder as .* count twice"),
    "broken link": (laid("a.png", then=link("b.png", "gone")), r"b\.png: leads to no file or folder"),
    "broken class": (laid("cat/a.png", then=link("dog", "gone")), "dog: leads to no file or folder"),
    "FIFO": (laid("a.png", then=fifo("x.png")), r"x\.png: is a FIFO"),
    "pipe": (laid("a.png", then=fifo("pipe")), "pipe: is a FIFO, allowed: files and folders"),
    "FIFO in class": (laid("a/a.png", "b/b.png", then=fifo("a/x.jpg")), "a FIFO"),
    "device": (laid("a.png", then=link("x.gif", "/dev/zero")), r"x\.gif: is a device, allowed: the"),
    "socket": (laid("a.png", then=bound_socket), r"x\.png: is a socket"),
    "folder as image": (laid("a.png", then=inside("x.png")), r"x\.png: is a folder"),
    "class as image": (laid("cat.png/a.png", "dog/b.png"), r"cat\.png: is a folder"),
    "line break": (laid("a.png", then=fifo("x\ny.png")), r"x\\ny\.png': is a FIFO"),
    "class's line break": (laid("a\nb/a.png", "c/b.png"), "a class's name may have printable"),
    "no UTF-8": (laid("c/b.png", os.fsdecode(b"\xff") + "/a.png"), "printable characters"),
    "sizes": (lambda f: (png(f / "a.png"), png(f / "b.png", size=(5, 6))),
              r"b\.png: is 5×6 pixels but a\.png is 4×6"),
    "turned sizes": (lambda f: (png(f / "a.png"), png(f / "b.png", size=(6, 4))),
                     r"b\.png: is 6×4 pixels but a\.png is 4×6"),
    "16 bits": (saved("x.png", SIXTEEN_GREY), r"x\.png: pixels of mode I;16, allowed: 1, L, P, RGB"),
    "16 bits of colour": (written("x.png", SIXTEEN_RGB), r"x\.png: pixels of 16 bits a channel"),
    "16 bits in TIFF": (saved("x.tif", SIXTEEN_GREY), r"x\.tif: pixels of mode I;16"),
    "floats": (saved("x.tiff", Image.new("F", SIZE)), r"x\.tiff: pixels of mode F"),
    "CMYK": (saved("x.jpg", Image.new("CMYK", SIZE)), r"x\.jpg: pixels of mode CMYK"),
    "alpha": (saved("x.png", Image.new("RGBA", SIZE)), r"x\.png: pixels of mode RGBA"),
    "grey alpha": (saved("x.png", Image.new("LA", SIZE)), r"x\.png: pixels of mode LA"),
    "alpha in WebP": (saved("x.webp", Image.new("RGBA", SIZE, (9, 9, 9, 9)), lossless=True), "RGBA"),
    "transparent palette": (saved("x.png", PALETTE, transparency=3), r"x\.png: transparent pixels"),
    "transparent palette of bytes": (saved("x.png", PALETTE, transparency=b"\0\x80"), "transparent pix"),
    "transparent grey": (saved("x.png", GREY, transparency=5), r"x\.png: transparent pixels"),
    "transparent colour": (saved("x.png", COLOUR, transparency=(0, 1, 2)), "transparent pixels"),
    "transparent GIF": (saved("x.gif", PALETTE, transparency=FIRST), r"x\.gif: transparent pixels"),
    "frames of GIF": (saved("x.gif", GREY, **FRAMES), r"x\.gif: 3 frames, allowed: one"),
    "frames of TIFF": (saved("x.tif", GREY, **FRAMES), r"x\.tif: 3 frames"),
    "frames of PNG": (saved("x.png", GREY, **FRAMES), r"x\.png: 3 frames"),
    "frames of WebP": (saved("x.webp", COLOUR, save_all=True, append_images=[OTHER]), "2 frames"),
    "pictures of MPO": (written("x.jpg", encoded(COLOUR, "MPO", save_all=True, append_images=[COLOUR])),
                        r"x\.jpg: 2 frames"),
    "text": (written("x.png", b"hello"), r"x\.png: not a readable image \(none of BMP, GIF"),
    "no bytes": (written("x.jpg", b""), r"x\.jpg: not a readable image"),
    "another kind": (written("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 6\n"), "readable"),
    "bomb": (written("x.png", bare_png(60_000, 60_000, 8, 0, b"")), r"x\.png: .*claims more than 89,4"),
    "small bomb": (written("x.png", bare_png(10_000, 10_000, 8, 0, b"")), r"claims more than 89,478,485"),
    "bomb of BMP": (written("x.bmp", encoded(GREY, "BMP")[:18] + struct.pack("<ii", 60_000, 60_000)
                            + encoded(GREY, "BMP")[26:]), r"x\.bmp: .*claims more than"),
    "checksum": (written("x.png", bytes(BROKEN_PNG)), r"x\.png: not a readable image \(cut off or dam"),
    "cut PNG": (written("x.png", encoded(GREY, "PNG")[:-30]), r"x\.png: .*cut off or damaged"),
    "cut JPEG": (written("x.jpg", encoded(GREY, "JPEG")[:-40]), r"x\.jpg: .*cut off or damaged"),
    "cut BMP": (written("x.bmp", encoded(GREY, "BMP")[:-9]), r"x\.bmp: .*cut off or damaged"),
    "no pixels": (written("x.png", bare_png(4, 6, 8, 0, b"")), r"x\.png: .*cut off or damaged"),
    "source.yaml beside": (laid("a.png", then=text("source.yaml", "kind: digits")),
                           r"source\.yaml: stands beside images, such as .*a\.png"),
    "source.yaml beside classes": (laid("a/a.png", "b/b.png", then=text("source.yaml", "kind: digits")),
                                   "source.yaml: stands beside images"),
    "source.yaml to nowhere": (laid("a.png", then=link("source.yaml", "gone")), r"source\.yaml: no such"),
    "source.yaml a folder": (inside("source.yaml"), r"source\.yaml: is no regular file"),
    "source.yaml a FIFO": (fifo("source.yaml"), r"source\.yaml: is no regular file"),
    "no folder": (Path.rmdir, "data: cannot be read"),
    "a file": (all_of(Path.rmdir, text("", "x")), "data: cannot be read"),
}  # fmt: skip

MIXTURE = (
    "kind: gaussian_mixture\nmeans: [[0, 0], [1, 1]]\nstds: [1, 1]\nweights: [1, 1]\ncount: 9\n"
)
MOONS = "kind: two_moons\ncount: "


def mixture(**changes: str) -> str:
    lines = [line for line in MIXTURE.splitlines() if line.split(":")[0] not in changes]
    return "\n".join([*lines, *(f"{key}: {value}" for key, value in changes.items())])


WHOLE = "an integer from 1 to 100,000,000"
DESCRIPTIONS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "None is not allowed, allowed: a block of keys"),
    "text": ("digits", "'digits' is not allowed, allowed: a block of keys"),
    "list": ("- kind: digits", "is not allowed, allowed: a block of keys"),
    "no YAML": ("kind: [", "not valid YAML"),
    "NUL": (b"kind: digits\0", "line 1"),
    "no UTF-8": (b"kind: \xff\xfe", "UTF-8"),
    "twice": ("kind: digits\nkind: digits", "kind"),
    "of itself": ("kind: &a [*a]", "source.yaml"),
    "multiplying": ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{y}: &{y} [{','.join([f'*{x}'] * 10)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
    ), "source.yaml"),
    "deep": ("kind: " + "[" * 1200, "source.yaml"),
    "huge": ("# " + "x" * 2_000_000 + "\nkind: digits", "source.yaml"),
    "tag": ("kind: !!python/object/apply:os.getcwd []", "source.yaml"),
    "no kind": ("count: 3", "kind: None is unknown, allowed: archive, arrays, digits"),
    "unknown kind": ("kind: digit", "kind: 'digit' is unknown, allowed: archive, arrays, digits"),
    "long kind": (f"kind: {'x' * 5000}", "kind: 'x{78}… is unknown"),
    "kind of a list": ("kind: [digits]", r"kind: \['digits'\] is unknown"),
    "kind of a block": ("kind: {a: digits}", "kind: {'a': 'digits'} is unknown"),
    "kind of a number": ("kind: 7", "kind: 7 is unknown"),
    "unknown key": (f"{MOONS}5\nnoize: 1", "noize: unknown key for kind 'two_moons', allowed: count, "),
    "line break in key": (f'{MOONS}5\n"a\\nb": 1', r"'a\\nb': unknown key"),
    "missing": ("kind: two_moons", "count: missing, kind 'two_moons' needs it"),
    "argument of digits": ("kind: digits\ncount: 3", "count: unknown key .* allowed: none"),
    "count of 0": (f"{MOONS}0", f"count: 0 is not allowed, allowed: {WHOLE}"),
    "count below 0": (f"{MOONS}-5", f"count: -5 is not allowed, allowed: {WHOLE}"),
    "count of 1e9": (f"{MOONS}1000000000", f"count: 1000000000 is not allowed, allowed: {WHOLE}"),
    "count 1e30": (f"{MOONS}1e30", rf"count: 1e\+30 is not allowed, allowed: {WHOLE}"),
    "count of 31 digits": (f"{MOONS}{10**30}", f"count: 10{{30}} is not allowed, allowed: {WHOLE}"),
    "count in words": (f"{MOONS}many", f"count: 'many' is not allowed, allowed: {WHOLE}"),
    "count true": (f"{MOONS}true", f"count: True is not allowed, allowed: {WHOLE}"),
    "count NaN": (f"{MOONS}.nan", f"count: nan is not allowed, allowed: {WHOLE}"),
    "count infinite": (f"{MOONS}.inf", f"count: inf is not allowed, allowed: {WHOLE}"),
    "count null": (f"{MOONS}null", f"count: None is not allowed, allowed: {WHOLE}"),
    "count of a half": (f"{MOONS}4.5", f"count: 4.5 is not allowed, allowed: {WHOLE}"),
    "count of a list": (f"{MOONS}[5]", rf"count: \[5\] is not allowed, allowed: {WHOLE}"),
    "count of mixture": (mixture(count="1e9"), f"count: 1000000000.0 is not allowed, allowed: {WHOLE}"),
    "memory": (mixture(means=str([[0.0] * 900] * 2), count="99999999"), "count: .*machine's memory"),
    "noise below 0": (f"{MOONS}5\nnoise: -0.1", "noise: -0.1 is not allowed, allowed: a number"),
    "noise NaN": (f"{MOONS}5\nnoise: .nan", "noise: nan is not allowed, allowed: a number"),
    "noise infinite": (f"{MOONS}5\nnoise: .inf", "noise: inf is not allowed, allowed: a number"),
    "noise 1e300": (f"{MOONS}5\nnoise: 1e300", r"noise: 1e\+300 is not allowed, allowed: a number"),
    "noise in words": (f"{MOONS}5\nnoise: little", "noise: 'little' is not allowed, allowed: a number"),
    "seed below 0": (f"{MOONS}5\nseed: -1", "seed: -1 is not allowed, allowed: an integer from 0 to 4,29"),
    "seed of 2^32": (f"{MOONS}5\nseed: 4294967296", "seed: 4294967296 is not allowed, allowed: an int"),
    "seed of mixture": (mixture(seed="-3"), "seed: -3 is not allowed, allowed: an integer from 0 to"),
    "seed in quotes": (f"{MOONS}5\nseed: '1'", "seed: '1' is not allowed, allowed: an integer from 0"),
    "means of text": (mixture(means="here"), r"means: 'here' is not allowed, allowed: \[\[a number, …"),
    "flat means": (mixture(means="[0, 1]"), r"means: \[0, 1\] is not allowed, allowed: \[\[a number"),
    "means NaN": (mixture(means="[[.nan, 0], [1, 1]]"), r"means: \[\[nan, 0\], .* is not allowed"),
    "ragged means": (mixture(means="[[0], [1, 1]]"), "all means the data's dimension, got .* 1, 2"),
    "no means": (mixture(means="[]", stds="[]", weights="[]"), "must have the same length"),
    "means of nothing": (mixture(means="[[], []]"), "must have the same length"),
    "means 1e300": (mixture(means="[[1e300, 0], [1, 1]]"), "(vectors that are not|means: )"),
    "stds of 0": (mixture(stds="[1, 0]"), r"stds: \[1, 0\] is not allowed, allowed: "),
    "stds below 0": (mixture(stds="[1, -1]"), r"stds: \[1, -1\] is not allowed, allowed: "),
    "stds infinite": (mixture(stds="[1, .inf]"), r"stds: \[1, inf\] is not allowed"),
    "stds of text": (mixture(stds="[1, wide]"), r"stds: \[1, 'wide'\] is not allowed, allowed: \[a n"),
    "too few stds": (mixture(stds="[1]"), "must have the same length .*got lengths 2, 1 and 2"),
    "weights below 0": (mixture(weights="[2, -1]"), r"weights: \[2, -1\] is not allowed, allowed: "),
    "weights of 0": (mixture(weights="[0, 0]"), r"weights: \[0, 0\] is not allowed, allowed: .*not all"),
    "weights NaN": (mixture(weights="[.nan, 1]"), r"weights: \[nan, 1\] is not allowed"),
    "weights 1e308": (mixture(weights="[1e308, 1e308]"), r"weights: .* is not allowed, allowed: "),
    "weights true": (mixture(weights="[true, 1]"), r"weights: \[True, 1\] is not allowed"),
    "torchvision's name": ("kind: torchvision\nname: Nope\nroot: .", "name: 'Nope' is no torchvision"),
    "torchvision's list": ("kind: torchvision\nname: [MNIST]\nroot: .", r"name: \['MNIST'\] .*: text"),
    "torchvision's root": ("kind: torchvision\nname: MNIST\nroot: 3", "root: 3 is not allowed, .*: text"),
    "no flag": ("kind: torchvision\nname: CelebA\nroot: .", "'CelebA' is no torchvision data set with"),
    "a module": ("kind: torchvision\nname: mnist\nroot: .", "'mnist' is no torchvision data set with a"),
    "download": ("kind: torchvision\nname: MNIST\nroot: .\ndownload: 'no'", "download: 'no' .*: true or"),
    "no files": ("kind: torchvision\nname: MNIST\nroot: nowhere\ndownload: false", "no usable MNIST"),
    "NUL in root": ('kind: torchvision\nname: MNIST\nroot: "a\\0b"', r"root: 'a\\x00b' is not allowed"),
    "no path": ("kind: arrays", "path: missing, kind 'arrays' needs it"),
    "path of a number": ("kind: archive\npath: 3", "archive: path: 3 is not allowed, allowed: text"),
    "path to nowhere": ("kind: arrays\npath: a.npz", r"path: 'a\.npz': no such file or folder in data/raw/d"),
    "path out of it": ("kind: huggingface\npath: ../other", r"path: '\.\./other' leads out of data/raw/data"),
    "long path": (f"kind: arrays\npath: {'x' * 5000}", "path: 'x{78}…: no such file"),
    "folder itself": ("kind: huggingface\npath: .", "path: data/raw/data holds no image set"),
    "a file of another kind": ("kind: arrays\npath: source.yaml", r"path: .*source\.yaml is of another kind"),
    "scale": ("kind: arrays\npath: source.yaml\nscale: wide", "arrays: scale: 'wide' .*: unit, symmetric"),
    "levels": ("kind: archive\npath: source.yaml\nlevels: 1", "levels: 1 is not allowed, .* from 2 to 256"),
    "hash": ("kind: arrays\npath: source.yaml\nsha256: abc", "sha256: 'abc' is not allowed, allowed: 64 hex"),
    "no images": ("kind: torchvision\nname: Kitti\nroot: nowhere\ndownload: false", "no usable Kitti"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a data set, relative to where its project is."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/raw/data")
    folder.mkdir(parents=True)
    return folder


def refusal(folder: Path) -> str:
    """Return the one line that a data set gets, which names its place."""
    with pytest.raises((ValueError, ParamsError)) as error:
        read_source(folder)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 700
    assert line.lstrip("'").startswith(str(folder))
    assert line.isprintable()
    return line


@pytest.mark.parametrize("case", FOLDERS)
def test_a_wrong_folder_is_refused_in_one_line(case: str, folder: Path) -> None:
    make, words = FOLDERS[case]
    make(folder)
    assert re.search(words, refusal(folder))


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_wrong_description_is_refused_in_one_line(case: str, folder: Path) -> None:
    text, words = DESCRIPTIONS[case]
    path = folder / "source.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refusal(folder)
    assert line.startswith(str(path))
    assert re.search(words, line), line
    for word in ("Traceback", "unhashable", "validation error", "input_value", "pydantic"):
        assert word not in line


ARGUMENTS: dict[str, dict[str, Any]] = {
    "gaussian_mixture": {"means": [[0, 0], [1, 1]], "stds": [1, 1], "weights": [1, 1], "count": 9,
                         "seed": 0},
    "two_moons": {"count": 9, "noise": 0.1, "seed": 0},
    "torchvision": {"name": "Nope", "root": "nowhere", "download": False},
    "digits": {},
    "arrays": {"path": "nowhere", "scale": None, "levels": 256, "licence": "", "sha256": None},
    "vectors": {"path": "nowhere", "licence": "", "sha256": None},
    "archive": {"path": "nowhere", "scale": None, "levels": 256, "licence": "", "sha256": None},
    "huggingface": {"path": "nowhere", "image": "image", "label": None, "split": None, "licence": "",
                    "sha256": None},
}  # fmt: skip
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**32, -(2**63), 10**40, 0.5, -0.0, 1e-320, 1e300, np.inf, -np.inf,
    np.nan, "", " ", "x" * 10_000, "\n", "a\nb", "\x1b[31m", "../..", "digits", [], [[]], [[[]]], [0], [0, 0],
    [1, 1, 1], [[0, 0]], [[0], [1, 2]], [[np.nan, 0], [0, 0]], ["a", 1], [None, 1], {}, {"a": 1}, [{}],
]  # fmt: skip


SEEDS = {"count=1", "seed=0", "seed=1"}
ACCEPTED: dict[str, set[str]] = {
    "gaussian_mixture": SEEDS,
    "two_moons": SEEDS | {f"noise={one}" for one in (0, 1, 2**32, 0.5, -0.0, 1e-320)},
    "torchvision": set(),
    "digits": {"kind=digits"},
    "arrays": set(),
    "vectors": set(),
    "archive": set(),
    "huggingface": set(),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_whatever_an_argument_is_it_is_data_or_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b/c")  # "../.." leads to nothing
    accepted = set()
    for key in (*ARGUMENTS[kind], "kind", "extra", "a\nb", 7, None):
        for value in NASTY:
            description = {"kind": kind} | ARGUMENTS[kind] | {key: value}
            try:
                raw = load_source(description)
            except ValueError as error:
                line = str(error)
            else:
                accepted.add(f"{key}={value}")
                assert np.isfinite(raw.x).all()
                continue
            assert line.isprintable(), (key, value)
            assert len(line) < 700
            said = (
                str(key),
                "\\n",
                "'Nope'",
                "have the same length",
                "unknown key for kind 'digits'",
                "path: nowhere",
            )
            assert any(words in line for words in said), (key, value, line)
    assert accepted == ACCEPTED[kind]


@pytest.mark.parametrize(
    "make",
    [
        text("source.yaml", f"{MOONS}many"),
        FOLDERS["source.yaml beside"][0],
        FOLDERS["FIFO"][0],  # before DVC, which would open it
        FOLDERS["splits"][0],
    ],
    ids=["description", "images", "FIFO", "folders"],
)
def test_check_says_what_prepare_would_say_before_it_reads(make: Make, folder: Path) -> None:
    make(folder)
    with pytest.raises(ParamsError) as error:
        source_of(folder)
    assert str(error.value) == refusal(folder)


IMAGES, VECTORS = np.zeros((3, 1, 2, 2), np.uint8), np.zeros((3, 2), np.float32)
NUMBERS = np.array([0, 1, 1])
GIVEN: dict[str, Any] = {
    "x": VECTORS, "labels": NUMBERS, "levels": None, "classes": ["a", "b"], "held_out": None,
    "source": "", "licence": "",
}  # fmt: skip
PARTS: dict[str, Any] = {"means": [[0.0, 0.0]], "stds": [1.0], "weights": [1.0]}
RAW: dict[str, tuple[dict[str, Any], str]] = {
    "too few labels": ({"labels": NUMBERS[:2]}, r"labels of shape \(2,\), allowed: one for each of its 3"),
    "too many labels": ({"labels": np.zeros(4, int)}, r"labels of shape \(4,\)"),
    "columns of labels": ({"labels": np.zeros((3, 1), int)}, r"labels of shape \(3, 1\)"),
    "label beyond": ({"labels": np.array([0, 1, 2])}, "labels from 0 to 2, allowed: 0 to 1, the numbers"),
    "label below": ({"labels": np.array([0, -1, 1])}, "labels from -1 to 1, allowed: 0 to 1"),
    "labels of halves": ({"labels": np.array([0, 0.5, 1])}, "labels of type float64, allowed: integers"),
    "no classes": ({"classes": []}, "labels from 0 to 1, allowed"),
    "one name twice": ({"classes": ["a", "a"]}, "two classes of the name 'a'"),
    "too few marks": ({"held_out": np.ones(2, bool)}, r"marks of held-out points of shape \(2,\)"),
    "marks of numbers": ({"held_out": np.ones(3, int)}, "marks of held-out points of type int64"),
    "no data": ({"x": VECTORS[:0], "labels": None}, r"data of shape \(0, 2\)"),
    "no dimension": ({"x": VECTORS[:, :0]}, r"data of shape \(3, 0\)"),
    "flat": ({"x": np.zeros(3, np.float32)}, r"data of shape \(3,\), allowed: \(N, C, H, W\)"),
    "no channel": ({"x": IMAGES[:, 0], "levels": 256}, r"data of shape \(3, 2, 2\)"),
    "NaN": ({"x": np.where([[1, 0]], np.nan, VECTORS).astype(np.float32)}, "3 of 3 vectors that are not"),
    "infinite": ({"x": np.array([[0, 0], [np.inf, 0], [0, 0]], np.float32)}, "1 of 3 vectors"),
    "doubles": ({"x": VECTORS.astype(float)}, "vectors of type float64"),
    "levels of vectors": ({"levels": 17}, "vectors of type float32 and 17 grey levels"),
    "images without levels": ({"x": IMAGES}, "uint8 and None grey levels, allowed: uint8 and 2 to 256"),
    "levels beyond": ({"x": IMAGES, "levels": 257}, "and 257 grey levels"),
    "one level": ({"x": IMAGES, "levels": 1}, "and 1 grey levels"),
    "grey value": ({"x": IMAGES + np.uint8(17), "levels": 17}, "grey level of 17, allowed: 0 to 16"),
    "images of floats": ({"x": IMAGES.astype(np.float32), "levels": 256}, "images of type float32"),
    "no weights": ({"mixture": {"means": [[0.0, 0.0]], "stds": [1.0]}}, "mixture: has means, stds, all"),
    "mixture's width": ({"mixture": PARTS | {"means": [[0.0]]}}, "the data's dimension"),
    "mixture's stds": ({"mixture": PARTS | {"stds": [-1.0]}}, r"stds: \[-1.0\] is not allowed"),
    "mixture's weights": ({"mixture": PARTS | {"weights": [np.inf]}}, r"weights: \[inf\] is not allow"),
    "mixture's means": ({"mixture": PARTS | {"means": [[np.nan, 0.0]]}}, "means: .* is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", RAW)
def test_data_that_do_not_fit_each_other_are_refused_whatever_their_source(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a source of somebody's own, which says them in one line with its file."""
    changes, words = RAW[case]
    RawData(**GIVEN | {"mixture": PARTS})
    RawData(**GIVEN | {"x": IMAGES, "levels": 256})

    def load_mine() -> RawData:
        return RawData(**GIVEN | changes)

    monkeypatch.setitem(SOURCES._known, "mine", load_mine)
    (folder / "source.yaml").write_text("kind: mine")
    assert re.search(words, refusal(folder))


def test_a_source_of_one_s_own_has_its_arguments_held_to_its_annotations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_mine(name: str, sizes: list[int], root: str, half: bool = False) -> RawData:
        raise AssertionError(f"called: {name} {sizes} {root} {half}")

    monkeypatch.setitem(SOURCES._known, "mine", load_mine)
    right = {"kind": "mine", "name": "a", "sizes": [1], "root": "."}
    for wrong, words in (
        ({"name": 1}, "mine: name: 1 is not allowed, allowed: text"),
        (
            {"sizes": [1, 2.5]},
            r"mine: sizes: \[1, 2.5\] is not allowed, allowed: \[an integer, …\]",
        ),
        ({"half": "no"}, "mine: half: 'no' is not allowed, allowed: true or false"),
        ({"root": None}, "mine: root: None is not allowed, allowed: text"),
    ):
        with pytest.raises(ValueError, match=words):
            load_source(right | wrong)
    (folder / "source.yaml").write_text("kind: mine\nname: a\nsizes: [1]\nroot: data/raw/data\n")
    png(folder / "a.png")  # what a source reads from its own folder
    with pytest.raises(AssertionError, match="called"):
        read_source(folder)


@pytest.mark.parametrize(
    ("path", "more"), [("set.npz", ""), ("link.npz", ""), ("../../set.npz", "sha256")]
)
def test_a_path_is_relative_to_its_source_yaml_and_what_it_leads_to_is_known_to_dvc(
    path: str, more: str, folder: Path
) -> None:
    x = np.arange(5 * 24, dtype=np.uint8).reshape(5, 6, 4, 1)
    np.savez(folder / "set.npz", arr_0=x)
    np.savez("data/set.npz", arr_0=x)
    (folder / "link.npz").symlink_to(Path("data/set.npz").resolve())
    digest = hashlib.sha256(Path("data/set.npz").read_bytes()).hexdigest()
    said = f"kind: arrays\npath: {path}\n" + (f"sha256: {digest}\n" if more else "")
    (folder / "source.yaml").write_text(said)
    assert source_of(folder)[1] == "images"
    np.testing.assert_array_equal(read_source(folder).x, x.transpose(0, 3, 1, 2))


def test_another_file_than_was_meant_is_refused_before_any_work(folder: Path) -> None:
    """By `check`, which reads descriptions alone; `prepare` compares a large file's hash."""
    np.save(folder / "set.npy", np.zeros((9, 4, 4), np.uint8))
    digest = hashlib.sha256((folder / "set.npy").read_bytes()).hexdigest()
    (folder / "source.yaml").write_text(f"kind: arrays\npath: set.npy\nsha256: {digest.upper()}")
    assert source_of(folder)[1] == "images"
    np.save(folder / "set.npy", np.ones((9, 4, 4), np.uint8))
    with pytest.raises(
        ParamsError, match=f"source.yaml: sha256: .*set.npy has .* and {digest} was"
    ):
        source_of(folder)


def test_images_beside_a_path_are_refused_and_what_dvc_has_not_fetched_is_awaited(
    folder: Path,
) -> None:
    (folder / "source.yaml").write_text("kind: archive\npath: set.zip")
    with pytest.raises(ParamsError, match=r"path: 'set\.zip': no such file or folder in data/raw"):
        source_of(folder)
    (folder / "set.zip.dvc").touch()
    assert source_of(folder)[1] == "images"
    png(folder / "a.png")
    with pytest.raises(ParamsError, match="stands beside images"):
        source_of(folder)


def class_of(folder: Path) -> dict[int, str]:
    """Return the class of each image, by the value that tells it apart, of a folder that is right."""
    raw = read_source(folder)
    names = [""] * len(raw.x) if raw.labels is None else [raw.classes[n] for n in raw.labels]
    return dict(zip(map(int, raw.x[:, 0, -1, -1]), names, strict=True))


RIGHT: dict[str, tuple[Make, dict[int, str]]] = {
    "classes that are links": (
        all_of(laid("../store/0.png", "cat/1.png"), link("dog", "../store")), {0: "dog", 1: "cat"}),
    "images that are links": (
        all_of(laid("../store/0.png", "1.png"), link("a.png", "../store/0.png")), {0: "", 1: ""}),
    "a folder that is a link": (
        all_of(laid("../store/a/0.png", "../store/b/1.png"), Path.rmdir, link("", "store")),
        {0: "a", 1: "b"}),
    "hidden ones": (laid("a/0.png", "b/1.png", ".git/2.png", "a/.ipynb_checkpoints/0.png", "b/.c.png",
                         "__MACOSX/a/0.png", "__MACOSX/._0.png"), {0: "a", 1: "b"}),
    "hidden classes alone": (laid("0.png", ".ipynb_checkpoints/1.png"), {0: ""}),
    "one folder in another": (laid("set/a/0.png", "set/b/1.png", "__MACOSX/set/2.png"), {0: "a", 1: "b"}),
    "one folder": (laid("all/0.png", "all/1.png"), {0: "", 1: ""}),
    "capitals": (laid("0.PNG", "1.png"), {0: "", 1: ""}),
    "other files": (
        all_of(laid("a/0.png", "b/1.png"), text("Thumbs.db"), text("a/notes.txt"), text("b/c"),
               inside("a/old")), {0: "a", 1: "b"}),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_what_lies_in_a_folder_is_found_with_its_class(case: str, folder: Path) -> None:
    make, expected = RIGHT[case]
    make(folder)
    assert class_of(folder) == expected


def test_what_is_no_image_is_counted(folder: Path) -> None:
    RIGHT["other files"][0](folder)
    assert "2 images; left aside: 3 other, such as" in read_source(folder).source


def random_folder(folder: Path, draw: np.random.Generator) -> dict[int, str]:
    """Make a right folder of random parts; return what is in it."""
    base = folder / "wrapped" if draw.random() < 0.3 else folder
    classes = [f"class {n}" for n in range(int(draw.integers(0, 4)))]
    expected: dict[int, str] = {}
    for name in classes or [""]:
        place = base / name
        if name and draw.random() < 0.4:  # a link to what lies elsewhere
            place = folder.parent / f"store {name}"
            base.mkdir(parents=True, exist_ok=True)
            (base / name).symlink_to(place.resolve())
        for _ in range(int(draw.integers(1, 4))):
            value = len(expected)
            expected[value] = name if len(classes) > 1 else ""
            ending = str(draw.choice([".png", ".PNG", ".bmp", ".tif"]))
            png(place / f"{draw.integers(10**9)}{ending}", value)
    for junk in draw.permutation(["__MACOSX/a.png", ".git/b.png", ".hidden.png", ".x/y/z.png"])[:2]:
        png(base / str(junk), 200)
    if draw.random() < 0.5:
        (base / "readme.txt").write_text("of these images")
    return expected


DEFECTS: tuple[Make, ...] = (
    fifo("x.png"),
    link("x.jpg", "gone"),
    inside("x.gif"),
    link("again", "."),
    lambda f: (f / "x.png").write_bytes(b"\x89PNG"),
    lambda f: png(f / "x/y/z/a.png"),
    lambda f: png(f / "x.png", size=(9, 9)),
    lambda f: GREY.save(f / "x.gif", **FRAMES),
)


@pytest.mark.parametrize("seed", range(40))
def test_random_folders_are_read_as_they_are_or_refused(seed: int, folder: Path) -> None:
    draw = np.random.default_rng(seed)
    expected = random_folder(folder, draw)
    assert class_of(folder) == expected
    DEFECTS[seed % len(DEFECTS)](folder)
    refusal(folder)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_an_image_is_turned_as_its_exif_data_say(orientation: int, kind: str, folder: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    quarters = np.kron(np.array([[250, 150], [100, 20]], np.uint8), np.ones((24, 16), np.uint8))
    Image.fromarray(quarters).convert("RGB").save(folder / f"a.{kind}", exif=exif)
    expected = {
        1: quarters, 2: quarters[:, ::-1], 3: quarters[::-1, ::-1], 4: quarters[::-1], 5: quarters.T,
        6: np.rot90(quarters, -1), 7: quarters[::-1, ::-1].T, 8: np.rot90(quarters),
    }[orientation]  # fmt: skip
    found = read_source(folder).x[0, 0].astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected)[::8, ::8].max() < 20  # JPEG and WebP lose a little


def test_sizes_are_compared_as_images_are_seen(folder: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    GREY.save(folder / "a.png")
    Image.fromarray(np.rot90(RAMP)).save(folder / "b.png", exif=exif)
    x = read_source(folder).x
    np.testing.assert_array_equal(x[0], x[1])
    Image.fromarray(np.rot90(RAMP)).save(folder / "b.png")
    assert "b.png: is 6×4 pixels but a.png is 4×6" in refusal(folder)


def test_orientation_behind_the_pixels_counts_too(folder: Path) -> None:
    """PNG allows it there, where Pillow looks only when the pixels have been read."""
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    content = encoded(GREY, "PNG")
    late = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    (folder / "a.png").write_bytes(late)
    np.testing.assert_array_equal(read_source(folder).x[0, 0], RAMP[::-1, ::-1])


def outcome(folder: Path) -> Any:
    """Return the pixels of the one image of a folder, or what is said of it."""
    try:
        return load_folder(folder).x[0]
    except ValueError as error:
        return str(error)


def test_damaged_bytes_of_a_png_are_never_other_pixels(folder: Path) -> None:
    """Its checksums say so; where a byte carries none, the pixels are the same ones."""
    draw, content = np.random.default_rng(0), encoded(GREY, "PNG")
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
        (folder / "a.png").write_bytes(damaged)
        found = outcome(folder)
        if isinstance(found, str):
            assert re.fullmatch(r"data/raw/data/a\.png: .*", found)
            refused += 1
        else:
            np.testing.assert_array_equal(found[0], RAMP)
    assert refused > 250


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_bytes_of_other_images_end_in_a_line_at_worst(kind: str, folder: Path) -> None:
    draw, content = np.random.default_rng(1), encoded(COLOUR, kind)
    for number in range(100):
        damaged = bytearray(content)
        for _ in range(int(draw.integers(1, 4))):
            damaged[draw.integers(len(content))] = int(draw.integers(256))
        (folder / "a.jpg").write_bytes(damaged[: len(content) - number % 3 * 7])
        found = outcome(folder)
        assert not isinstance(found, str) or re.fullmatch(r"data/raw/data/a\.jpg: .*", found)


# Copies, splits and cards.


def points(copies: dict[int, int], labels: bool = True, count: int = 60) -> RawData:
    """Return different points of which some are copies of others: number → of which."""
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    for number, other in copies.items():
        x[number] = x[other]
    return RawData(**GIVEN | {"x": x, "labels": np.arange(count) % 2 if labels else None})


def sides(raw: RawData, *rows: Any) -> list[set[bytes]]:
    return [set(map(bytes, raw.x[one])) for one in rows]


@pytest.mark.parametrize("labels", [True, False])
def test_a_split_without_copies_is_scikit_learn_s(labels: bool) -> None:
    from sklearn.model_selection import train_test_split

    raw = points({}, labels)
    expected = train_test_split(np.arange(60), test_size=0.3, random_state=5, stratify=raw.labels)
    for found, right in zip(split(raw, 0.3, None, "x", 5), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_all_copies_of_a_data_point_are_on_one_side() -> None:
    copies = {2: 0, 4: 0, 6: 0, 30: 8, 33: 1, 59: 58}
    raw = points(copies)
    plain = train_test_leaks(points(copies))
    for seed in range(20):
        train, held_out = split(raw, 0.5, None, "x", seed)
        assert sorted([*train, *held_out]) == list(range(60))
        one, other = sides(raw, train, held_out)
        assert not one & other
        card = card_of("x", raw, train, held_out, "")
        assert (card["copies"], card["leaked"]) == (6, 0)
    assert plain > 0  # what a split without regard to copies does


def train_test_leaks(raw: RawData) -> int:
    """Return how many points a split that knows no copies has on both sides."""
    order = np.random.default_rng(0).permutation(60)
    one, other = sides(raw, order[:30], order[30:])
    return len(one & other)


@pytest.mark.usefixtures("folder")
def test_copies_across_a_source_s_own_split_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = points({59: 0, 58: 1, 57: 1, 3: 1})
    raw = RawData(**vars(raw) | {"held_out": np.arange(60) >= 40, "labels": np.arange(60) % 2})
    card = prepared(raw, monkeypatch, held_out="source")
    assert (card["count"], card["copies"], card["leaked"]) == ({"train": 40, "held_out": 20}, 4, 3)
    said = capsys.readouterr().err
    assert "4 of 60 data points are exact copies of others" in said
    assert "2 copies have another label than the first of them" in said
    assert "warning: data: 3 of 20 held-out data points are exact copies of training points" in said


def test_copied_images_in_two_classes_are_on_one_side(folder: Path) -> None:
    for number in range(20):
        png(folder / f"a/{number}.png", number)
        png(folder / f"b/{number}.png", 3 if number == 7 else 100 + number)
    raw = read_source(folder)
    for seed in range(10):
        one, other = sides(raw, *split(raw, 0.5, None, "x", seed))
        assert not one & other


def labelled(*counts: int, held_out: Any = None, same: bool = False) -> RawData:
    """Return points with so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(1).standard_normal((len(labels), 2)).astype(np.float32)
    classes = [f"c{n}" for n in range(len(counts))]
    return RawData(
        **GIVEN | {"x": x * (not same), "labels": labels, "classes": classes, "held_out": held_out}
    )


SPLITS: dict[str, tuple[RawData, Any, int | None, str]] = {
    "no test split": (
        labelled(5, 5),
        "source",
        None,
        "held_out: 'source' is not allowed, .*of its own",
    ),
    "all held out": (labelled(2, 2, held_out=np.ones(4, bool)), "source", None, "split is empty"),
    "none held out": (labelled(2, 2, held_out=np.zeros(4, bool)), "source", None, "split is empty"),
    "rare class": (
        labelled(5, 1),
        0.5,
        None,
        "at least one of each class; class 'c1' has one of 6 data",
    ),
    "few held out": (
        labelled(9, 9, 9),
        0.01,
        None,
        "at least 3 of 27 data points, .* leaves 26 and 1",
    ),
    "few left": (labelled(9, 9, 9), 0.99, None, "at least 3 of 27 .* it leaves 0 and 27|one of 27"),
    "one point": (
        points({}, labels=False, count=1),
        0.5,
        None,
        "both sides at least one of 1 data",
    ),
    "all the same": (
        labelled(5, 5, same=True),
        0.5,
        None,
        "at least one of 1 different data points",
    ),
    "limit": (
        labelled(9, 9, 9),
        0.5,
        2,
        "limit: 2 is not allowed, .*of the 3 classes; it leaves none",
    ),
}


@pytest.mark.parametrize("case", SPLITS)
def test_a_split_that_cannot_be_is_refused_in_our_words(case: str) -> None:
    raw, held_out, limit, words = SPLITS[case]
    with pytest.raises(ParamsError, match=words) as error:
        split(raw, held_out, limit, "mine", 0)
    line = str(error.value)
    assert line.startswith("params.yaml: datasets.mine.")
    assert "\n" not in line
    for word in ("populated", "test_size", "n_samples", "y has"):
        assert word not in line


def test_data_that_do_not_vary_are_refused() -> None:
    for x in (np.tile(np.array([1, 2], np.float32), (9, 1)), np.full((9, 1, 2, 2), 7, np.uint8)):
        raw = RawData(**GIVEN | {"x": x, "labels": None, "levels": 256 if x.ndim == 4 else None})
        with pytest.raises(ValueError, match=r"data/raw/mine: all 6 training points have the same"):
            card_of("mine", raw, np.arange(6), np.arange(6, 9), "")


# What prepare writes.


def prepared(raw: RawData, patch: pytest.MonkeyPatch, held_out: Any = 0.5) -> dict[str, Any]:
    """Run the stage on these data, and return the card that it writes."""
    how = {"held_out": held_out, "seed": 0, "gives": "images" if raw.x.ndim == 4 else "vectors"}
    patch.setattr(tasks.prepare, "resolved", lambda _: how)
    patch.setattr(tasks.prepare, "read_source", lambda _: raw)
    main(Configuration("data"))
    card: dict[str, Any] = json.loads(Configuration("data").card.read_text())
    return card


def files() -> dict[str, bytes]:
    """Return every file that stands in the artifacts."""
    return {str(p): p.read_bytes() for p in Path("artifacts").rglob("*") if p.is_file()}


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("error", [full_disk, killed])
@pytest.mark.parametrize("name", ["write_rows", "card_of", "write_text", "write_arrays", "shown"])
@pytest.mark.parametrize("before", [True, False], ids=["old files", "no files"])
def test_a_prepare_that_fails_leaves_what_was_there(
    name: str, error: Any, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = points({}), points({}, labels=False, count=40)
    if before:
        prepared(old, monkeypatch)
    there = files()
    assert bool(there) == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.prepare, name, error)
        with pytest.raises((OSError, KeyboardInterrupt)):
            prepared(new, patch)
    assert files() == there
    card = prepared(new, monkeypatch)
    arrays = read_rows(Configuration("data").arrays)
    assert card["count"] == {"train": len(arrays["train"]), "held_out": len(arrays["held_out"])}
    assert set(arrays) == {"train", "held_out"}  # and no labels of the old ones


@pytest.mark.usefixtures("folder")
def test_a_disk_that_fills_up_between_arrays_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = np.lib.format.write_array_header_1_0
    calls = []

    def header(file: Any, content: Any) -> None:
        calls.append(content)
        if len(calls) == 3:
            full_disk()
        right(file, content)

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", header)
    with pytest.raises(OSError, match="No space left") as error:
        prepared(points({}), monkeypatch)
    assert len(calls) == 3
    assert error.value.filename is not None
    assert files() == {}


@pytest.mark.usefixtures("folder")
def test_what_a_killed_prepare_has_left_is_removed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = Configuration("data").arrays.with_name(".new-arrays")
    left.mkdir(parents=True)
    (left / "train.npy").write_bytes(b"half")
    prepared(points({}), monkeypatch)
    assert not left.exists()
    assert sorted(path.name for path in Configuration("data").arrays.parent.iterdir()) == [
        "arrays",
        "card.json",
    ]
