"""Arrays of one's own in a file of numpy's: images, or vectors."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from scoremodel.bounds import Bounds
from scoremodel.data.exchange import ImageSet, Scale, ScaleMissingError, fitted, read_images
from scoremodel.data.sources.base import SOURCES, RawData
from scoremodel.data.sources.file import checked_path

__all__ = ["Levels", "load_arrays", "load_vectors", "raw_data"]

Levels = Annotated[int, Bounds(ge=2, le=256)]
"""How many grey levels images have: 0 to one less."""
_ENDINGS = (".npz", ".npy")


@SOURCES.register("arrays", gives="images")
def load_arrays(
    path: str,
    scale: Scale | None = None,
    levels: Levels = 256,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return the images of an npz (`arr_0`, `arr_1` for class numbers; `samples`) or npy file.

    Args:
        path: the file.
        scale: the range of real values, which become the nearest grey levels.
        levels: number of grey levels that they have, or get.
        licence: the data's licence.
        sha256: of the file, compared before it is read.

    Returns:
        Grey levels with shape (N, C, H, W), and classes if the file has them.

    Raises:
        ValueError: if the file is another, holds no images, or says not what its numbers mean.
    """
    here = checked_path(path, sha256, _ENDINGS, folders=False)
    return raw_data(here.name, read_images(here, scale), levels, licence)


@SOURCES.register("vectors", gives="vectors")
def load_vectors(path: str, licence: str = "undeclared", sha256: str | None = None) -> RawData:
    """Return the vectors of an npz or npy file, as `load_arrays` returns images.

    Args:
        path: the file.
        licence: the data's licence.
        sha256: of the file, compared before it is read.

    Returns:
        Vectors with shape (N, D), and classes if the file has them.

    Raises:
        ValueError: if the file is another, or holds no vectors.
    """
    here = checked_path(path, sha256, _ENDINGS, folders=False)
    try:
        images = read_images(here)
    except ScaleMissingError:
        raise ValueError(_other_kind(here.name, "images", "arrays")) from None
    return raw_data(here.name, images, None, licence)


def raw_data(name: str, images: ImageSet, levels: int | None, licence: str) -> RawData:
    """Return a set that was read from a file as data.

    Args:
        name: the file's.
        images: the set.
        levels: number of grey levels of images, None of vectors.
        licence: the data's licence.

    Returns:
        The data; what was assumed of them is said in their `source`.

    Raises:
        ValueError: if they are vectors and should be images, or the other way round.
    """
    if (images.x.ndim == 4) != (levels is not None):
        what, kind = ("images", "arrays") if images.x.ndim == 4 else ("vectors", "vectors")
        raise ValueError(_other_kind(name, what, kind))
    if levels is not None and images.x.dtype != np.uint8:
        images = fitted(images, images.x.shape[1:], levels)
    what = "images" if levels else "vectors"
    return RawData(
        x=images.x,
        labels=images.labels,
        levels=levels,
        classes=list(images.classes),
        held_out=None,
        source="; ".join([f"{name}, {len(images.x)} {what}", *images.said]),
        licence=licence,
    )


def _other_kind(name: str, what: str, kind: str) -> str:
    return f"path: {name} holds {what}, allowed: kind {kind} for these"
