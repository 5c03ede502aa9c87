"""Array files without pickles: `.npz` with a little JSON inside, and a data set's rows in `.npy`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.io.files import atomic_path

__all__ = [
    "chunked",
    "read_arrays",
    "read_card",
    "read_rows",
    "shown",
    "write_arrays",
    "write_rows",
]

_INFO = "info"
_CHUNK_BYTES = 2**25
_IMAGES, _VECTORS = 100, 20_000


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


def shown(data: NDArray[Any]) -> NDArray[Any]:
    """Return what of some images (N, C, H, W) or vectors (N, D) is there to be seen: the first ones."""
    return np.array(data[: _IMAGES if data.ndim == 4 else _VECTORS])


def chunked(rows: NDArray[np.intp], array: NDArray[Any]) -> Iterator[NDArray[np.intp]]:
    """Yield `rows`, numbers of rows of `array`, in pieces of which each takes some 30 MB of it."""
    each = array.dtype.itemsize * math.prod(array.shape[1:])
    size = max(1, _CHUNK_BYTES // each)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def write_rows(folder: Path, splits: Mapping[str, tuple[NDArray[Any], NDArray[np.intp]]]) -> str:
    """Write chosen rows of arrays as one `.npy` file each, a few rows in memory at a time.

    Args:
        folder: where `NAME.npy` go; other arrays in it are deleted.
        splits: by name, an array and the numbers of its rows.

    Returns:
        The SHA-256 of all names, types, shapes and rows.
    """
    digest = hashlib.sha256()
    for name, (array, rows) in splits.items():
        shape = (len(rows), *array.shape[1:])
        digest.update(f"{name}{array.dtype}{shape}".encode())
        header = {
            "descr": np.lib.format.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for numbers in chunked(rows, array):
                part = np.ascontiguousarray(array[numbers])
                digest.update(part.data)
                file.write(part.data)
    for path in folder.glob("*.npy"):
        if path.stem not in splits:
            path.unlink()
    return digest.hexdigest()


def read_rows(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays that `write_rows` wrote, by name, mapped into memory: read as it is used.

    Args:
        folder: where the files lie.

    Returns:
        The arrays; what is written to them does not reach the files.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if a file is damaged, naming it.
    """
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            arrays[path.stem] = np.load(path, mmap_mode="c", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: damaged ({error})") from error
    if "train" not in arrays:
        raise FileNotFoundError(f"{folder}: no data; run dvc repro")
    return arrays


def read_card(path: Path) -> dict[str, Any]:
    """Return a data set's card."""
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card
