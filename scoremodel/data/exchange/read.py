"""Image sets from a folder, an npz, an npy or an EDM zip."""

from __future__ import annotations

import os

from scoremodel.data.exchange.image_set import ImageSet, Scale

__all__ = ["read_images"]


def read_images(
    path: str | os.PathLike[str],
    scale: Scale | None = None,
    levels: int = 256,
    key: str | None = None,
    labels_key: str | None = None,
) -> ImageSet:
    """Return the images of a folder, an npz (`arr_0`, `arr_1`; `samples`), an npy or an EDM zip.

    Args:
        path: the folder or file.
        scale: what the values of a floating-point array mean; needed for one of images only.
        levels: number of grey levels of an array: integers are 0 … levels − 1, real values are
            rounded to them.
        key: name of an npz's array of images, if it has another one.
        labels_key: name of an npz's array of labels, if it has another one.

    Returns:
        The images, with what was assumed.

    Raises:
        ValueError: one line that names the file, its member, and what is allowed.
    """
    raise NotImplementedError
