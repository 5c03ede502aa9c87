"""Sources: what each gives, and the one line that a broken one gets."""

from __future__ import annotations

import gzip
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scoremodel.data.exchange import write_images
from scoremodel.data.sources.base import SOURCES, RawData, load_source
from scoremodel.data.sources.folder import load_folder


def test_the_mixture_has_its_weights_means_and_spreads() -> None:
    raw = load_source(
        {
            "kind": "gaussian_mixture",
            "means": [[-1, 0], [2, 1]],
            "stds": [0.1, 0.3],
            "weights": [3, 1],
            "count": 20_000,
        }
    )
    assert raw.labels is not None
    share = float((raw.labels == 0).mean())
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 20_000) ** 0.5
    for index, (mean, std) in enumerate([((-1, 0), 0.1), ((2, 1), 0.3)]):
        points = raw.x[raw.labels == index]
        np.testing.assert_allclose(points.mean(0), mean, atol=4 * std / len(points) ** 0.5)
        np.testing.assert_allclose(points.std(0), std, rtol=4 / (2 * len(points)) ** 0.5)


def test_a_folder_of_class_folders_is_labelled_and_grey_stays_grey(tmp_path: Path) -> None:
    for label, value in (("cat", 10), ("dog", 200)):
        (tmp_path / label).mkdir()
        for index in range(3):
            image = np.full((4, 6), value + index, np.uint8)
            Image.fromarray(image).save(tmp_path / label / f"{index}.png")
    raw = load_folder(tmp_path)
    assert raw.x.shape == (6, 1, 4, 6)
    assert raw.x[:, 0, 0, 0].tolist() == [10, 11, 12, 200, 201, 202]
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.classes == ["cat", "dog"]


def test_a_flat_folder_of_colour_images_has_no_labels(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raw = load_folder(tmp_path)
    assert raw.labels is None
    np.testing.assert_array_equal(raw.x[0], pixels.transpose(2, 0, 1))


def test_one_folder_of_images_says_nothing_about_classes(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "all" / "a.png")
    assert load_folder(tmp_path).labels is None


def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        load_folder(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: is 8×9 pixels but a\.png is 8×8"):
        load_folder(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: pixels of mode I;16, allowed: 1, L, P, RGB"):
        load_folder(tmp_path)
    (tmp_path / "c").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "c" / "c.png")
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: lies beside sub-folders"):
        load_folder(tmp_path)
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"b\.png: not a readable image"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("description", "gives"),
    [
        ({"kind": "digits"}, "images"),
        ({"kind": "two_moons", "count": 3}, "vectors"),
        (
            {
                "kind": "gaussian_mixture",
                "means": [[0, 0]],
                "stds": [1],
                "weights": [1],
                "count": 3,
            },
            "vectors",
        ),
    ],
)
def test_a_source_gives_what_it_says(description: dict[str, object], gives: str) -> None:
    """It is said without loading anything, so that a checker can hold a network against it."""
    assert SOURCES[str(description["kind"])].gives == gives
    raw = load_source(description)
    assert (raw.x.ndim, raw.levels is None) == {"vectors": (2, True), "images": (4, False)}[gives]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"kind": "digit"}, "kind: 'digit' is unknown, allowed: archive, arrays, digits"),
        ({"kind": "two_moons"}, "count: missing"),
        ({"kind": "two_moons", "count": 5, "noize": 1}, "noize: unknown key"),
        ({"kind": "torchvision", "name": "Nope", "root": "."}, "'Nope' is no torchvision data set"),
    ],
)
def test_wrong_descriptions_are_named(description: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_source(description)


def test_fashion_mnist_is_torchvision_s_with_its_own_test_split(real_images: Path) -> None:
    """It is read where it lies, without being unpacked there."""
    before = sorted(path.name for path in (real_images / "FashionMNIST" / "raw").iterdir())
    raw = load_source({"kind": "torchvision", "name": "FashionMNIST", "root": str(real_images)})
    assert sorted(path.name for path in (real_images / "FashionMNIST" / "raw").iterdir()) == before
    assert raw.x.shape == (70_000, 1, 28, 28)
    assert SOURCES["torchvision"].gives == "images"
    assert raw.held_out is not None
    assert int(raw.held_out.sum()) == 10_000
    scaled = raw.x[~raw.held_out] / 127.5 - 1
    assert float(scaled.std()) == pytest.approx(0.7060, abs=1e-4)
    assert raw.classes[:2] == ["T-shirt/top", "Trouser"]


def test_a_truncated_archive_is_named_and_nothing_is_taken_for_data(
    real_images: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(real_images / "MNIST" / "raw", raw)
    archive = raw / "train-images-idx3-ubyte.gz"
    archive.chmod(0o644)
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises((EOFError, gzip.BadGzipFile)), gzip.open(archive) as file:
        file.read()
    with pytest.raises(ValueError, match="holds no usable MNIST files"):
        load_source(
            {"kind": "torchvision", "name": "MNIST", "root": str(tmp_path), "download": False}
        )


DRAW = np.random.default_rng(3)
PIXELS, NUMBERS = DRAW.integers(0, 256, (40, 3, 4, 6), dtype=np.uint8), DRAW.integers(0, 3, 40)
NAMES = ["ant", "bee", "cat"]


def parquet(path: Path, x: Any, labels: Any, told: bool = True) -> Path:
    """Write what `datasets` would, by Arrow alone."""
    import pyarrow
    from pyarrow import parquet as writer

    images = []
    for one in x:
        place = path.with_suffix(".png")
        Image.fromarray(one.transpose(1, 2, 0)).save(place)
        images.append({"bytes": place.read_bytes(), "path": None})
        place.unlink()
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if told else None
    table = pyarrow.table({"img": images, "label": labels})
    writer.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)
    return path


def described(kind: str, folder: Path) -> dict[str, Any]:
    """Write the same images as a kind takes them; return what a `source.yaml` would say."""
    if kind == "huggingface":
        parquet(folder / "train-00000-of-00002.parquet", PIXELS[:25], NUMBERS[:25])
        parquet(folder / "train-00001-of-00002.parquet", PIXELS[25:], NUMBERS[25:])
        return {"kind": kind, "path": str(folder)}
    form, name = ("npz", "a.npz") if kind == "arrays" else ("zip", "a.zip")
    write_images(folder / name, PIXELS, NUMBERS, NAMES, form)  # type: ignore[arg-type]
    return {"kind": kind, "path": str(folder / name)} | (
        {"classes": NAMES} if kind == "arrays" else {}
    )


KINDS = ("arrays", "archive", "huggingface")


@pytest.mark.parametrize("kind", KINDS)
def test_images_in_others_files_are_a_data_set(kind: str, tmp_path: Path) -> None:
    raw = load_source(described(kind, tmp_path) | {"licence": "CC BY 4.0"})
    np.testing.assert_array_equal(raw.x, PIXELS)
    np.testing.assert_array_equal(raw.labels, NUMBERS)
    assert (raw.classes, raw.levels, raw.licence) == (NAMES, 256, "CC BY 4.0")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hash_holds_the_files_to_what_they_were(kind: str, tmp_path: Path) -> None:
    said = described(kind, tmp_path)
    path = Path(said["path"])
    if path.is_dir():
        lines = [
            f"{sha256(one.read_bytes()).hexdigest()}  {one.name}\n"
            for one in sorted(path.iterdir())
        ]
        digest = sha256("".join(lines).encode()).hexdigest()
    else:
        digest = sha256(path.read_bytes()).hexdigest()
    load_source(said | {"sha256": digest.upper()})
    with pytest.raises(ValueError, match=f"sha256: '0{{64}}' is not that of .*, which is {digest}"):
        load_source(said | {"sha256": "0" * 64})


def test_vectors_of_a_file_are_a_data_set_and_each_kind_names_the_other(tmp_path: Path) -> None:
    points = DRAW.standard_normal((9, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", points=points, of=np.arange(9) % 3)
    raw = load_source(
        {"kind": "vectors", "path": "a.npz", "vectors": "points", "labels": "of"}, base=tmp_path
    )
    np.testing.assert_array_equal(raw.x, points)
    assert (raw.classes, raw.levels) == (["0", "1", "2"], None)
    with pytest.raises(
        ValueError, match="holds vectors, allowed: images; kind 'vectors' takes them"
    ):
        load_source({"kind": "arrays", "path": str(tmp_path / "a.npz"), "images": "points"})
    np.save(tmp_path / "b.npy", PIXELS)
    with pytest.raises(
        ValueError, match="holds images, allowed: vectors; kind 'arrays' takes them"
    ):
        load_source({"kind": "vectors", "path": str(tmp_path / "b.npy")})


def test_a_split_of_a_hugging_face_set_is_held_out(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", PIXELS[:30], NUMBERS[:30])
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", PIXELS[30:], NUMBERS[30:])
    raw = load_source({"kind": "huggingface", "path": str(tmp_path), "held_out": "test"})
    np.testing.assert_array_equal(raw.x, PIXELS)
    assert raw.held_out is not None
    assert raw.held_out.tolist() == [False] * 30 + [True] * 10


def one_file(folder: Path) -> dict[str, Any]:
    return {"kind": "huggingface", "path": str(parquet(folder / "a.parquet", PIXELS, NUMBERS))}


def test_what_a_hugging_face_set_does_not_say_is_asked_for(tmp_path: Path) -> None:
    said = one_file(tmp_path)
    assert load_source(said).classes == NAMES
    bare = parquet(tmp_path / "b.parquet", PIXELS, NUMBERS, told=False)
    with pytest.raises(ValueError, match=r"image: no column of images in .*\['img', 'label'\]"):
        load_source(said | {"path": str(bare)})
    raw = load_source(said | {"path": str(bare), "image": "img"})
    assert raw.classes == ["0", "1", "2"]
    np.testing.assert_array_equal(raw.labels, NUMBERS)
    for wrong, words in (
        ({"label": "img"}, "label: column 'img' holds no integers"),
        ({"image": "label"}, r"a\.parquet: label 0: no bytes of an image in the file"),
        ({"image": "im"}, r"image: 'im' is no column, allowed: \['img', 'label'\]"),
        (
            {"path": str(tmp_path), "split": "tests"},
            r"split 'tests' is not there, there are: \['a', 'b'\]",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            load_source(said | wrong)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    for damaged in (content[:-9], b"PAR1" + content[4:300]):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path: .*a\.parquet': cannot be read \(") as error:
            load_source(said)
        assert str(error.value).isprintable()


def test_without_pyarrow_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"huggingface needs pyarrow.*scoremodel\[huggingface\]"):
        load_source({"kind": "huggingface", "path": str(tmp_path)})


def test_what_was_assumed_of_a_file_stands_in_its_source(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS / np.float32(255))
    raw: RawData = load_source({"kind": "arrays", "path": str(tmp_path / "a.npy"), "scale": "unit"})
    np.testing.assert_array_equal(raw.x, PIXELS)
    assert raw.source == (
        "a.npy; channels before height and width: taken as (N, C, H, W); "
        "float32 in [0, 1] rounded to 256 grey levels"
    )
