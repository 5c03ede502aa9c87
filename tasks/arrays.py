"""Array files: `.npz` without pickles, with a little JSON inside."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.files import atomic_path

__all__ = ["read_arrays", "read_card", "write_arrays"]

_INFO = "info"


def write_arrays(
    path: str | os.PathLike[str],
    arrays: dict[str, NDArray[Any]],
    info: dict[str, Any] | None = None,
) -> None:
    """Write arrays and `info` as one `.npz`, whole or not at all, the same bytes every time."""
    text = np.array(json.dumps(info or {}, sort_keys=True))
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays, **{_INFO: text})  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the info that `write_arrays` wrote.

    Args:
        path: an `.npz` file.

    Returns:
        The arrays by name, and the info.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, naming it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != _INFO}
            return arrays, json.loads(str(file[_INFO]))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged or not written by this pipeline ({error})") from error


def read_card(path: Path) -> dict[str, Any]:
    """Return a data set's card."""
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card
