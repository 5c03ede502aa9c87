"""Where data come from: bundled, generated, torchvision's, or a folder of images.

Every source gives the same thing, a `RawData`, or raises `ValueError` with one line that names what
is wrong and where.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_ENDINGS", "SOURCES", "RawData", "load_folder", "load_source"]

_MODES = ("1", "L", "P", "RGB")  # 8 bits a channel; alpha would have to be dropped
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class RawData:
    """A data set before it is split.

    Args:
        x: grey levels (uint8) with shape (N, C, H, W), or vectors (float32) with shape (N, D).
        labels: class numbers with shape (N,), or None.
        levels: number of grey levels, None for real values.
        classes: names of the classes, in the order of their numbers.
        held_out: True for the data points of the source's own test split, or None if it has none.
        source: where the data come from, for people.
        licence: the data's licence.
        mixture: means, stds and weights of the Gaussian mixture that the data were drawn from, if
            they were, so that their score is known (`scoremodel.oracles.GaussianMixture`).
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None
    levels: int | None
    classes: list[str]
    held_out: NDArray[np.bool_] | None
    source: str
    licence: str
    mixture: dict[str, Any] | None = None


def load_digits() -> RawData:
    """Return scikit-learn's 1,797 handwritten digits, 8×8 pixels with 17 grey levels."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    return RawData(
        x=digits.images.astype(np.uint8)[:, None],
        labels=digits.target.astype(np.int64),
        levels=17,
        classes=[str(name) for name in digits.target_names],
        held_out=None,
        source="scikit-learn load_digits; E. Alpaydin, C. Kaynak, UCI 1998",
        licence="CC BY 4.0",
    )


def load_gaussian_mixture(
    means: list[list[float]], stds: list[float], weights: list[float], count: int, seed: int = 0
) -> RawData:
    """Return `count` points of Σ_k w_k N(m_k, s_k² I), labelled by component.

    Args:
        means: component means with shape (K, D).
        stds: K standard deviations.
        weights: K weights; they are normalised to sum to one.
        count: number of points.
        seed: seed of the points.

    Returns:
        Vectors with shape (count, D).

    Raises:
        ValueError: if the lists do not fit each other.
    """
    if not len(means) == len(stds) == len(weights) or len({len(mean) for mean in means}) != 1:
        raise ValueError(
            f"means, stds and weights must have the same length and all means the same dimension, "
            f"got {len(means)}, {len(stds)} and {len(weights)}"
        )
    draw = np.random.default_rng(seed)
    probabilities = np.asarray(weights, float) / np.sum(weights)
    labels = draw.choice(len(means), size=count, p=probabilities)
    noise = draw.standard_normal((count, len(means[0])))
    points = np.asarray(means, float)[labels] + np.asarray(stds, float)[labels, None] * noise
    return RawData(
        x=points.astype(np.float32),
        labels=labels.astype(np.int64),
        levels=None,
        classes=[str(index) for index in range(len(means))],
        held_out=None,
        source=f"mixture of {len(means)} Gaussians with weights {weights}, generated",
        licence="CC0",
        mixture={"means": means, "stds": stds, "weights": weights},
    )


def load_two_moons(count: int, noise: float = 0.05, seed: int = 0) -> RawData:
    """Return `count` points of scikit-learn's two interleaving half circles, with Gaussian noise."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(count, noise=noise, random_state=seed)
    return RawData(
        x=points.astype(np.float32),
        labels=labels.astype(np.int64),
        levels=None,
        classes=["upper", "lower"],
        held_out=None,
        source="scikit-learn make_moons, generated",
        licence="CC0",
    )


def load_torchvision(name: str, root: str, download: bool = True) -> RawData:
    """Return one of torchvision's image data sets that have a train flag, both splits.

    Args:
        name: the data set's class in `torchvision.datasets`, such as "FashionMNIST".
        root: folder that holds the files or will receive them.
        download: whether missing files may be downloaded; present ones are checked by their MD5.

    Returns:
        Grey levels with shape (N, C, H, W); the data set's own test split is `held_out`.

    Raises:
        ValueError: if there is no such data set, or its files are missing or damaged.
    """
    import inspect

    from torchvision import datasets

    cls = getattr(datasets, name, None)
    flags = inspect.signature(cls).parameters if inspect.isclass(cls) else {}
    if not {"root", "train", "download"} <= set(flags):
        allowed = [
            other
            for other in datasets.__all__
            if {"root", "train", "download"}
            <= set(inspect.signature(getattr(datasets, other)).parameters)
        ]
        raise ValueError(
            f"name: {name!r} is no torchvision data set with a train flag, "
            f"allowed: {', '.join(sorted(allowed))}"
        )
    try:
        with _unpacking_root(Path(root), name) as unpacked:
            splits = [cls(unpacked, train=t, download=download) for t in (True, False)]  # type: ignore[misc]
            arrays = [np.asarray(split.data) for split in splits]
    except Exception as error:  # torchvision raises whatever its download or archive code does
        reason = " ".join(str(error).split())
        raise ValueError(f"root: {root!r} holds no usable {name} files ({reason})") from error
    x = np.concatenate(arrays)
    x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    labels = np.concatenate([np.asarray(split.targets) for split in splits])
    held_out = np.concatenate([np.full(len(a), i == 1) for i, a in enumerate(arrays)])
    return RawData(
        x=np.ascontiguousarray(x),
        labels=labels.astype(np.int64),
        levels=256,
        classes=[str(label) for label in getattr(splits[0], "classes", sorted(set(labels)))],
        held_out=held_out,
        source=f"torchvision.datasets.{name}",
        licence="see the data set's authors",
    )


@contextmanager
def _unpacking_root(root: Path, name: str) -> Iterator[str]:
    """Yield a root in which torchvision may unpack: a copy of the archives, if they are there.

    torchvision unpacks beside the archives, which a read-only folder forbids, and takes unpacked
    files for good without looking at the archives' MD5.
    """
    archives = sorted((root / name / "raw").glob("*.gz"))
    if not archives:
        yield str(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, name, "raw")
        raw.mkdir(parents=True)
        for archive in archives:
            shutil.copyfile(archive, raw / archive.name)
        yield folder


@contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    """Yield an opened image; that it cannot be read, even later, is said in one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise ValueError(
                    f"{path}: pixels of mode {image.mode}, allowed: {', '.join(_MODES)}"
                )
            yield image
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error


def load_folder(folder: Path) -> RawData:
    """Return the images of a folder, labelled by sub-folder if they lie in sub-folders.

    Args:
        folder: holds images directly, or one sub-folder of images for each class.

    Returns:
        Grey levels with shape (N, 1, H, W) if every image is greyscale, else (N, 3, H, W), in the
        order of their paths.

    Raises:
        ValueError: if there is no image, one cannot be read, or sizes differ; the file is named.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(f"{folder}: no images (allowed endings: {' '.join(IMAGE_ENDINGS)})")
    grey = True
    first = None
    for path in files:  # their headers only
        with _image(path) as image:
            grey = grey and image.mode in ("1", "L")
            first = first or image.size
            if image.size != first:
                sizes = "{}×{} pixels but {} is {}×{}".format(*image.size, files[0].name, *first)
                raise ValueError(f"{path}: is {sizes}; all images must have one size")
    # To a file and back as a map of it: the images may be more than fits into memory.
    with tempfile.TemporaryFile() as decoded:
        for path in files:
            with _image(path) as image:
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
            decoded.write(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)).data)
        decoded.flush()
        assert first is not None
        shape = (len(files), 1 if grey else 3, first[1], first[0])
        x = np.memmap(decoded, dtype=np.uint8, mode="c", shape=shape)
    parents = [path.relative_to(folder).parts[0] for path in files]
    loose = [path for path in files if path.parent == folder]
    if loose and len(loose) < len(files):
        raise ValueError(
            f"{loose[0]}: lies beside sub-folders of images; either all images lie in sub-folders, "
            "one for each class, or none does"
        )
    classes = [] if loose else sorted(set(parents))
    if len(classes) < 2:  # one folder of images says nothing about classes
        classes = []
    labels = np.array([classes.index(name) for name in parents]) if classes else None
    return RawData(
        x=x,
        labels=labels,
        levels=256,
        classes=classes,
        held_out=None,
        source=f"folder of {len(files)} images",
        licence="undeclared",
    )


SOURCES: dict[str, Callable[..., RawData]] = {
    "digits": load_digits,
    "torchvision": load_torchvision,
    "gaussian_mixture": load_gaussian_mixture,
    "two_moons": load_two_moons,
}
"""The sources that a `source.yaml` can name as its `kind`; its other keys are the arguments."""


def load_source(description: dict[str, Any], base: str | os.PathLike[str] = ".") -> RawData:
    """Return the data that a description names: {"kind": one of SOURCES, argument: value, …}.

    Args:
        description: the content of a `source.yaml`.
        base: folder that a relative `root` is relative to.

    Returns:
        The data.

    Raises:
        ValueError: if the kind is unknown, an argument is, or the source cannot be read.
    """
    import inspect

    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in SOURCES:
        raise ValueError(f"kind: {kind!r} is unknown, allowed: {', '.join(SOURCES)}")
    allowed = inspect.signature(SOURCES[kind]).parameters
    for key in arguments:
        if key not in allowed:
            names = ", ".join(allowed) or "none"
            raise ValueError(f"{key}: unknown key for kind {kind!r}, allowed: {names}")
    missing = [
        key
        for key, parameter in allowed.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        raise ValueError(f"{missing[0]}: missing, kind {kind!r} needs it")
    if "root" in arguments:
        arguments["root"] = str(Path(base, arguments["root"]))
    return SOURCES[kind](**arguments)
