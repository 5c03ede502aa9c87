"""Sources: what each gives, and the one line that a broken one gets."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
        ({"kind": "digit"}, "kind: 'digit' is unknown, allowed: digits, gaussian_mixture"),
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
