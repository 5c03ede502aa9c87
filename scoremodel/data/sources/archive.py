"""Images of one's own in a zip, as EDM and EDM2 take their data."""

from __future__ import annotations

from pathlib import Path

from scoremodel.bounds import shown
from scoremodel.data.exchange.read import read_images
from scoremodel.data.sources.base import SOURCES, RawData, from_images, require_hash

__all__ = ["load_archive"]


@SOURCES.register("archive", gives="images")
def load_archive(
    path: str,
    classes: list[str] | None = None,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return the images of a zip, with the labels of its `dataset.json`.

    Args:
        path: the zip; nothing of it is unpacked to disk.
        classes: names of the classes, in the order of their numbers.
        licence: the data's licence.
        sha256: of the file, which is then held to it.

    Returns:
        Grey levels with shape (N, C, H, W), in the order of the members' names.

    Raises:
        ValueError: if the zip is not what it should be; the member is named.
    """
    if Path(path).suffix.lower() != ".zip":
        raise ValueError(f"path: {shown(path)} is not allowed, allowed: .zip")
    require_hash(path, sha256)
    return from_images(read_images(path), path, licence, classes)
