"""Array files without pickles: `.npz` with a little JSON inside, and a data set's rows in `.npy`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat
from typing_extensions import TypedDict

from scoremodel.io.files import DamagedError, atomic_path
from scoremodel.io.mapped import map_privately, pieces
from tasks.files.documents import read_json, require_shape

__all__ = [
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
_SPLITS = ("train", "held_out")
_LABELS = "{split}_labels"


class _Count(TypedDict):
    train: int
    held_out: int


class _Card(TypedDict):
    name: str
    shape: list[int]
    count: _Count
    levels: int | None
    mean: list[FiniteFloat]
    std: FiniteFloat
    class_counts: dict[str, int] | None
    mixture: dict[str, Any] | None
    sha256: str


def write_arrays(
    path: str | os.PathLike[str],
    arrays: dict[str, NDArray[Any]],
    info: dict[str, Any] | None = None,
) -> None:
    """Write arrays and `info` as one `.npz`, whole or not at all, the same bytes every time."""
    text = np.array(json.dumps(info or {}, sort_keys=True))
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays, **{_INFO: text})  # type: ignore[arg-type]


def read_arrays(
    path: Path, needs: Collection[str] = ()
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the info that `write_arrays` wrote.

    Args:
        path: an `.npz` file.
        needs: names of arrays, and keys of the info, that must be there.

    Returns:
        The arrays by name, and the info.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if the file is damaged, naming it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != _INFO}
            info = json.loads(str(file[_INFO]))
    except (FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:  # which a damaged header may ask for too
        raise DamagedError(path, "larger than memory, or not as it was written") from error
    except Exception as error:  # numpy and zipfile name no one kind for a damaged file
        raise DamagedError(path, "cut off, changed, or not written by this pipeline") from error
    require_shape(info, path, dict[str, Any])
    for name in needs:
        if name not in arrays and name not in info:
            raise DamagedError(path, f"lacks {name}")
    return arrays, info


def shown(data: NDArray[Any]) -> NDArray[Any]:
    """Return what of some images (N, C, H, W) or vectors (N, D) is there to be seen: the first ones."""
    return np.array(data[: _IMAGES if data.ndim == 4 else _VECTORS])


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
        digest.update(_described(name, array.dtype, shape))
        header = {
            "descr": np.lib.format.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces(array, rows):
                part = np.ascontiguousarray(piece)
                digest.update(part.data)
                file.write(part.data)
    for path in folder.glob("*.npy"):
        if path.stem not in splits:
            path.unlink()
    return digest.hexdigest()


def _described(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what an array's hash begins with."""
    return f"{name}{dtype}{shape}".encode()


def read_rows(folder: Path, card: Mapping[str, Any] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays that `write_rows` wrote, by name, mapped into memory: read as it is used.

    Args:
        folder: where the files lie.
        card: the data set's card; the arrays must be those that it describes, hash and all.

    Returns:
        The arrays; what is written to them does not reach the files.

    Raises:
        FileNotFoundError: if there are none.
        DamagedError: if a file is damaged, or another one than the card says, naming it.
    """
    found: dict[str, np.memmap[Any, Any]] = {}
    for path in sorted(folder.glob("[!.]*.npy")):
        try:
            found[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except PermissionError:
            raise
        except Exception as error:  # numpy names no one kind for a damaged file
            raise DamagedError(path, "cut off, or no array") from error
    if "train" not in found:
        raise FileNotFoundError(f"{folder}: no data; run dvc repro")
    if card is not None:
        _require_described(folder, found, card)
    return {name: _own(folder / f"{name}.npy", array) for name, array in found.items()}


def _own(path: Path, array: np.memmap[Any, Any]) -> NDArray[Any]:
    with path.open("rb") as file:
        return map_privately(file, array.dtype, array.shape, array.offset)


def _require_described(
    folder: Path, arrays: Mapping[str, np.memmap[Any, Any]], card: Mapping[str, Any]
) -> None:
    names = list(_SPLITS)
    if card["class_counts"] is not None:
        names += [_LABELS.format(split=split) for split in _SPLITS]
    for name in names:
        if name not in arrays:
            raise DamagedError(folder, f"lacks {name}.npy, which the card describes")
        split = name.removesuffix("_labels")
        own = () if name not in _SPLITS else tuple(card["shape"])
        shape = (card["count"][split], *own)
        if arrays[name].shape != shape:
            found = f"shape {arrays[name].shape}, and by the card it is {shape}"
            raise DamagedError(folder / f"{name}.npy", found)
    digest = hashlib.sha256()
    for name in names:
        array = arrays[name]
        digest.update(_described(name, array.dtype, array.shape))
        # Not through the mapping: what is read of it would stay in this process's memory.
        with (folder / f"{name}.npy").open("rb") as file:
            file.seek(array.offset)
            left = array.nbytes
            while left and (part := file.read(min(left, _CHUNK_BYTES))):
                digest.update(part)
                left -= len(part)
    if digest.hexdigest() != card["sha256"]:
        raise DamagedError(folder, "its content is not what the card was made of")


def read_card(path: Path) -> dict[str, Any]:
    """Return a data set's card.

    Args:
        path: the file.

    Returns:
        The card.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is damaged, naming it.
    """
    card: dict[str, Any] = read_json(path, _Card)
    return card
