"""What a data set's folder says of its source, known before anything of it is read."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from scoremodel.bounds import shown
from scoremodel.data.sources.base import checked_description
from scoremodel.data.sources.file import checked_path
from scoremodel.data.sources.folder import first_image, image_files
from tasks.params.read import read_yaml

__all__ = ["read_description"]

_QUICK = 2**28
"""Bytes of which a hash takes no time; that of a larger file is compared by `prepare`, which reads it."""


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return the content of a folder's `source.yaml`, None if it holds images instead.

    Args:
        folder: a data set's folder in `data/raw`.

    Returns:
        The description, whose kind and arguments are allowed, or None; images lie as they may then.

    Raises:
        ParamsError: if the file is no YAML.
        ValueError: one line that names the file and what is wrong with it.
    """
    path = folder / "source.yaml"
    if not os.path.lexists(path):
        image_files(folder)
        return None
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {shown(content)} is not allowed, allowed: a block of keys")
    try:
        checked_description(content)
        _require_no_images(folder, content)
        _require_path(folder, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def _require_no_images(folder: Path, description: dict[str, Any]) -> None:
    """Refuse images that a `source.yaml` beside them would hide, unless its source reads there."""
    image = first_image(folder)
    if image is None:
        return
    root, path = description.get("root"), description.get("path")
    own = isinstance(root, str) and Path(root).resolve().is_relative_to(folder.resolve())
    if not own and not (isinstance(path, str) and image.is_relative_to(folder / path)):
        raise ValueError(
            f"stands beside images, such as {image}; allowed: a source.yaml or images, not both"
        )


def _require_path(folder: Path, description: dict[str, Any]) -> None:
    """Refuse a `path` to nothing, or to what may change without a stage's knowing."""
    path = description.get("path")
    if not isinstance(path, str):
        return
    here = Path(os.path.normpath(folder / path))
    inside = here.is_relative_to(os.path.normpath(folder))
    if not inside and not description.get("sha256"):
        raise ValueError(
            f"path: {shown(path)} leads out of {folder}, which is all that tells a stage of a change; "
            "allowed: a file or folder in it, or a link there, or the file's sha256 beside the path"
        )
    # What DVC has not fetched yet, prepare will find.
    if not os.path.exists(here) and not os.path.exists(f"{here}.dvc"):  # noqa: PTH110 (a name may be too long)
        raise ValueError(f"path: {shown(path)}: no such file or folder in {folder}")
    digest = description.get("sha256")
    if digest is not None and os.path.exists(here) and here.stat().st_size <= _QUICK:  # noqa: PTH110
        _require_digest(here, digest, here.stat().st_mtime_ns)


@cache
def _require_digest(path: Path, digest: str, _: int) -> None:
    """Refuse another file than was meant, once for each time that it was written."""
    checked_path(str(path), digest, [path.suffix.lower()], folders=True)
