"""An archive of images: EDM's zip of PNG or NPY, with `dataset.json` for class numbers."""

from __future__ import annotations

from scoremodel.data.exchange import Scale, read_images
from scoremodel.data.sources.arrays import Levels, raw_data
from scoremodel.data.sources.base import SOURCES, RawData
from scoremodel.data.sources.file import checked_path

__all__ = ["load_archive"]


@SOURCES.register("archive", gives="images")
def load_archive(
    path: str,
    scale: Scale | None = None,
    levels: Levels = 256,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return the images of a zip, with the classes of its `dataset.json`.

    Args:
        path: the file.
        scale: the range of real values in NPY files, which become the nearest grey levels.
        levels: number of grey levels that the images have, or get.
        licence: the data's licence.
        sha256: of the file, compared before it is read.

    Returns:
        Grey levels with shape (N, C, H, W), in the order of the images' names.

    Raises:
        ValueError: if the file is another, or damaged, or its images are not of one size.
    """
    here = checked_path(path, sha256, [".zip"], folders=False)
    return raw_data(here.name, read_images(here, scale), levels, licence)
