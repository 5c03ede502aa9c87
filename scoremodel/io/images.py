"""Writing images as others read them: one array, a folder of PNG, or a zip of them.

npz     `arr_0`, uint8 (N, H, W, 3), and `arr_1`, class numbers (N,): Dhariwal and Nichol's ADM
folder  `000000/000000.png`, folders by thousand: Karras et al.'s EDM; `dataset.json` has the classes
zip     the same files, stored
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scoremodel.io.files import atomic_folder, atomic_path

__all__ = ["ImageForm", "write_images"]

ImageForm = Literal["npz", "folder", "zip"]
_EACH = 1000  # files in a folder
_DATE = (1980, 1, 1, 0, 0, 0)  # of every member, so that the bytes repeat


def write_images(
    path: str | os.PathLike[str],
    x: NDArray[np.uint8],
    labels: NDArray[np.int64] | None = None,
    form: ImageForm = "npz",
    levels: int = 256,
) -> None:
    """Write images, whole or not at all, the same bytes every time.

    Grey levels 0 … L − 1 become the nearest of 0 … 255, from which round(v (L − 1) / 255) is the way
    back; in an npz one channel becomes three that are equal, as its readers expect.

    Args:
        path: the file, or the folder.
        x: images (N, C, H, W) with one channel or three.
        labels: class numbers (N,), where they are known.
        form: one of the above.
        levels: L.

    Raises:
        ValueError: if the images are of another type or shape.
    """
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(
            f"images: {x.dtype} {x.shape} is not allowed, allowed: uint8 (N, C, H, W) with C = 1 or 3"
        )
    pixels = np.round(x.transpose(0, 2, 3, 1) * (255 / (levels - 1))).astype(np.uint8)
    if form == "npz":
        classes: dict[str, Any] = {} if labels is None else {"arr_1": labels}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, arr_0=np.broadcast_to(pixels, (*pixels.shape[:3], 3)), **classes)
    elif form == "folder":
        with atomic_folder(path) as folder:
            for name, content in _files(pixels, labels):
                Path(folder, name).parent.mkdir(exist_ok=True)
                Path(folder, name).write_bytes(content)
    else:
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in _files(pixels, labels):
                archive.writestr(zipfile.ZipInfo(name, _DATE), content)


def _files(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None
) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and content: the classes, where they are known, and a PNG for each image."""
    from PIL import Image

    names = [f"{n - n % _EACH:06}/{n:06}.png" for n in range(len(pixels))]
    if labels is not None:
        said = {"labels": [[name, int(label)] for name, label in zip(names, labels, strict=True)]}
        yield "dataset.json", json.dumps(said).encode()
    for name, image in zip(names, pixels, strict=True):
        content = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
        yield name, content.getvalue()
