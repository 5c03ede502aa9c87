"""A folder of images of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoremodel.data.sources.base import RawData

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_ENDINGS", "load_folder"]

_MODES = ("1", "L", "P", "RGB")  # 8 bits a channel; alpha would have to be dropped
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


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
