"""Images or vectors of one's own in an npz or npy file."""

from __future__ import annotations

from pathlib import Path

from scoremodel.bounds import shown
from scoremodel.data.exchange.image_set import ImageSet, Scale
from scoremodel.data.exchange.read import ARRAY_ENDINGS, read_images
from scoremodel.data.sources.base import SOURCES, Levels, RawData, from_images, require_hash

__all__ = ["load_arrays", "load_vectors"]


@SOURCES.register("arrays", gives="images")
def load_arrays(
    path: str,
    images: str | None = None,
    labels: str | None = None,
    classes: list[str] | None = None,
    scale: Scale | None = None,
    levels: Levels = 256,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return the images of an npz or npy file, as `scoremodel.data.exchange.read_images` reads them.

    Args:
        path: the file.
        images: name of an npz's array of images; `arr_0` or `samples` by default.
        labels: name of an npz's array of labels (`arr_1` by default), or an npy file beside an npy.
        classes: names of the classes, in the order of their numbers.
        scale: what a real-valued array's numbers mean.
        levels: number of grey levels.
        licence: the data's licence.
        sha256: of the file, which is then held to it.

    Returns:
        Grey levels with shape (N, C, H, W).

    Raises:
        ValueError: if the file is not what it should be, or holds vectors.
    """
    found = _read(path, images, labels, scale, levels, sha256)
    if found.x.ndim != 4:
        raise ValueError(
            f"path: {shown(path)} holds vectors, allowed: images; kind 'vectors' takes them"
        )
    return from_images(found, path, licence, classes)


@SOURCES.register("vectors", gives="vectors")
def load_vectors(
    path: str,
    vectors: str | None = None,
    labels: str | None = None,
    classes: list[str] | None = None,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return the vectors of an npz or npy file: real numbers with shape (N, D).

    Args:
        path: the file.
        vectors: name of an npz's array of vectors; `arr_0` or `samples` by default.
        labels: name of an npz's array of labels (`arr_1` by default), or an npy file beside an npy.
        classes: names of the classes, in the order of their numbers.
        licence: the data's licence.
        sha256: of the file, which is then held to it.

    Returns:
        float32 with shape (N, D).

    Raises:
        ValueError: if the file is not what it should be, or holds images.
    """
    found = _read(path, vectors, labels, None, 256, sha256)
    if found.x.ndim != 2:
        raise ValueError(
            f"path: {shown(path)} holds images, allowed: vectors; kind 'arrays' takes them"
        )
    return from_images(found, path, licence, classes)


def _read(
    path: str,
    key: str | None,
    labels: str | None,
    scale: Scale | None,
    levels: int,
    sha256: str | None,
) -> ImageSet:
    if Path(path).suffix.lower() not in ARRAY_ENDINGS:
        raise ValueError(f"path: {shown(path)} is not allowed, allowed: .npz or .npy")
    require_hash(path, sha256)
    return read_images(path, scale=scale, levels=levels, key=key, labels_key=labels)
