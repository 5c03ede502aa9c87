"""Sources: what each gives, and the one line that a broken one gets."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from scoremodel.data.exchange import write_images
from scoremodel.data.sources.base import SOURCES, load_source
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


def own_digits() -> tuple[Any, Any]:
    """Return 40 digits of 17 grey levels, and their classes."""
    data = load_digits()
    return data.images[:40, None].astype(np.uint8), data.target[:40].astype(np.int64)


def parquet(path: Path, x: Any, classes: Any, names: list[str] | None = None, **more: Any) -> None:
    """Write images as the Hub has them: PNG in a column of structs, names of classes in the schema."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for one in x:
        out = io.BytesIO()
        Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)).save(out, "PNG")
        rows.append({"bytes": out.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": classes, **more})
    feature = {"_type": "ClassLabel", "names": names} if names else {"_type": "Value"}
    said = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(said)}), path, row_group_size=7
    )


@pytest.mark.parametrize("kind", ["npz", "npy", "zip", "parquet", "unit"])
def test_the_same_images_from_any_file_are_the_same_data(kind: str, tmp_path: Path) -> None:
    x, classes = own_digits()
    path = tmp_path / {"unit": "set.npy"}.get(kind, f"set.{kind}")
    levels: dict[str, Any] = {"levels": 17}
    if kind == "npz":
        np.savez(path, arr_0=x.transpose(0, 2, 3, 1), arr_1=classes)
    elif kind == "zip":
        write_images(path, x, classes, form="zip")
    elif kind == "parquet":
        parquet(path, x, classes)
        levels = {}
    else:
        np.save(path, x[:, 0] / 16 if kind == "unit" else x[:, 0])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"zip": "archive", "parquet": "huggingface"}.get(kind, "arrays")
    said = {"kind": source, "path": path.name, "licence": "CC0", "sha256": digest, **levels}
    if kind == "unit":
        said["scale"] = "unit"
    raw = load_source(said, base="/nowhere", folder=tmp_path)
    np.testing.assert_array_equal(raw.x, x)
    assert (raw.levels, raw.licence, SOURCES[source].gives) == (
        17 if levels else 256,
        "CC0",
        "images",
    )
    assert path.name in raw.source
    if kind in ("npy", "unit"):
        assert raw.labels is None
    else:
        np.testing.assert_array_equal(raw.labels, classes)
        assert raw.classes == [str(number) for number in range(10)]
    with path.open("ab") as file:  # which a reader of zip and npy would not notice
        file.write(b" ")
    with pytest.raises(ValueError, match=f"sha256: .*{path.name} has .* and {digest} was wanted"):
        load_source(said, folder=tmp_path)


def test_vectors_of_a_file_are_vectors(tmp_path: Path) -> None:
    points = np.random.default_rng(0).standard_normal((9, 2))
    np.savez(tmp_path / "points.npz", arr_0=points, arr_1=np.arange(9) % 2)
    raw = load_source({"kind": "vectors", "path": "points.npz"}, folder=tmp_path)
    assert SOURCES["vectors"].gives == "vectors"
    np.testing.assert_array_equal(raw.x, points.astype(np.float32))
    assert (raw.levels, raw.classes) == (None, ["0", "1"])
    with pytest.raises(ValueError, match="holds vectors, allowed: kind vectors for these"):
        load_source({"kind": "arrays", "path": "points.npz"}, folder=tmp_path)
    for dtype in (np.float32, np.uint8):  # of real values it knows no scale, and asks for none
        np.save(tmp_path / "images.npy", np.zeros((9, 4, 4), dtype))
        with pytest.raises(
            ValueError, match=r"images\.npy holds images, allowed: kind arrays for th"
        ):
            load_source({"kind": "vectors", "path": "images.npy"}, folder=tmp_path)


def test_an_image_set_of_two_splits_holds_out_its_test(tmp_path: Path) -> None:
    x, classes = own_digits()
    names = [f"digit {number}" for number in range(10)]
    for part, rows in (
        ("train-00000-of-00002", slice(0, 15)),
        ("train-00001-of-00002", slice(15, 30)),
        ("test-00000-of-00001", slice(30, 40)),
    ):
        parquet(tmp_path / f"data/{part}.parquet", x[rows], classes[rows], names)
    whole = load_source({"kind": "huggingface", "path": "."}, folder=tmp_path)
    np.testing.assert_array_equal(whole.x, x)
    np.testing.assert_array_equal(whole.labels, classes)
    assert whole.held_out is not None
    assert np.flatnonzero(whole.held_out).tolist() == list(range(30, 40))
    assert whole.classes == names
    one = load_source({"kind": "huggingface", "path": ".", "split": "test"}, folder=tmp_path)
    np.testing.assert_array_equal(one.x, x[30:])
    assert one.held_out is None


def test_one_image_in_colour_makes_all_of_a_set_colour_and_texts_are_classes(
    tmp_path: Path,
) -> None:
    grey = np.full((1, 4, 6), 9, np.uint8)
    colour = np.random.default_rng(0).integers(0, 256, (3, 4, 6), np.uint8)
    parquet(tmp_path / "a.parquet", [grey, colour], ["dog", "cat"])
    raw = load_source({"kind": "huggingface", "path": "a.parquet"}, folder=tmp_path)
    np.testing.assert_array_equal(raw.x, [np.repeat(grey, 3, 0), colour])
    assert raw.labels is not None
    assert [raw.classes[number] for number in raw.labels] == ["dog", "cat"]


def test_wrong_image_sets_get_one_line(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    x, classes = own_digits()
    good = tmp_path / "good.parquet"
    parquet(good, x, classes, None, number=classes / 2)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-40])
    whole = bytearray(good.read_bytes())
    whole[100:400] = bytes(300)
    (tmp_path / "bad.parquet").write_bytes(whole)
    parquet(tmp_path / "none.parquet", x[:2], pa.array([1, None]))
    parquet(tmp_path / "beyond.parquet", x[:2], [0, 2], ["a", "b"])
    parquet(tmp_path / "below.parquet", x[:2], [-1, 0])
    parquet(tmp_path / "sizes.parquet", [x[0], x[1][:, :5]], [0, 1])
    for name in ("a", "b", "test"):
        parquet(tmp_path / f"three/{name}.parquet", x[:2], [0, 1])
        parquet(tmp_path / f"twice/{name}/0000.parquet", x[:2], [0, 1])
        parquet(tmp_path / f"twice/more/{name}/0000.parquet", x[:2], [0, 1])
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text(
        '{"_data_files": [{"filename": "gone.arrow"}], "_split": null}'
    )
    (tmp_path / "listless").mkdir()
    (tmp_path / "listless/state.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    for path, more, words in (
        ("gone.parquet", {}, "path: .*gone.parquet: no such file, allowed: .parquet or a folder"),
        ("cut.parquet", {}, "path: .*cut.parquet: cut off or damaged"),
        ("bad.parquet", {}, "bad.parquet"),
        (
            "good.parquet",
            {"image": "img"},
            "image: 'img' is not allowed, allowed: a column of .*'image, la",
        ),
        (
            "good.parquet",
            {"image": "label"},
            "image: 'label' of .* holds 'int64', allowed: encoded images",
        ),
        ("good.parquet", {"label": "class"}, "label: 'class' is not allowed, allowed: a column of"),
        (
            "good.parquet",
            {"label": "number"},
            "label: 'number' of .* holds 'double', allowed: integers or",
        ),
        ("good.parquet", {"split": "test"}, "split: 'test' is not allowed, allowed: one of 'good'"),
        ("none.parquet", {}, "label: row 1 of 'label' has none"),
        ("beyond.parquet", {}, "label: 'label' has class numbers from 0 to 2, allowed: 0 to 1"),
        ("below.parquet", {}, "label: 'label' has class numbers from -1 to 0, allowed: 0 to 99999"),
        ("sizes.parquet", {}, "sizes.parquet/row 1: is 8×5 pixels but row 0 is 8×8"),
        ("three", {}, "split: None is not allowed, allowed: one of 'a, b, test'"),
        ("twice", {}, "files of 'a' in several folders, such as .*twice/a/0000"),
        ("saved", {}, "saved: cut off or damaged"),
        ("listless", {}, "listless/state.json is not what save_to_disk writes"),
        (
            "empty",
            {},
            "empty holds no image set, allowed: parquet files, or what save_to_disk wrote",
        ),
        ("empty", {"sha256": "0" * 64}, "sha256: .*empty is a folder, allowed: of a file"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            load_source({"kind": "huggingface", "path": path, **more}, folder=tmp_path)
        assert "\n" not in str(caught.value), path


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs the library pyarrow.*scoremodel\[huggingface\]"):
        load_source({"kind": "huggingface", "path": "."}, folder=tmp_path)
