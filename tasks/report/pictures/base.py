"""From arrays that are there to be seen to files that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from scoremodel.io.files import atomic_path, write_text
from scoremodel.registry import Registry
from tasks.files.arrays import read_arrays

__all__ = ["PICTURES", "Picture", "draw", "write"]

Picture = Callable[[Mapping[str, NDArray[Any]], Mapping[str, Any]], "Image.Image | str"]
"""(arrays, what is said of them) → an image, or the text of an SVG; the same for the same arrays."""

PICTURES: Registry[Picture] = Registry("tasks.report.pictures", "picture")


def draw(shown: Path, stem: Path) -> Path | None:
    """Draw what a file of arrays shows.

    Args:
        shown: the file, whose info names the picture.
        stem: where the picture goes, without its ending.

    Returns:
        The picture's file, written whole or not at all; None if there is nothing to see.

    Raises:
        ValueError: if the file is damaged, or names no picture that there is.
    """
    arrays, info = read_arrays(shown)
    if not info:
        return None
    if info.get("picture") not in PICTURES:
        raise ValueError(
            f"{shown}: picture {info.get('picture')!r}, allowed: {', '.join(PICTURES)}"
        )
    return write(arrays, info, stem)


def write(arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any], stem: Path) -> Path:
    """Draw arrays as their info says.

    Args:
        arrays: what is seen.
        info: its `picture`, one of `PICTURES`, and what that wants to know.
        stem: where it goes, without its ending.

    Returns:
        The picture's file, written whole or not at all.
    """
    made = PICTURES[info["picture"]](arrays, info)
    path = stem.with_name(stem.name + (".svg" if isinstance(made, str) else ".png"))
    if isinstance(made, str):
        write_text(path, made + "\n")
    else:
        with atomic_path(path) as temporary:
            made.save(temporary, format="PNG")
    return path
