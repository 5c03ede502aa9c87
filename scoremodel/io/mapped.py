"""Arrays in files that may be larger than memory: mapped, read as they are used, and given back."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["give_back", "map_privately", "pieces"]

_PIECE = 2**25  # bytes
_NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE, which older Pythons do not name


def map_privately(
    file: IO[bytes], dtype: DTypeLike, shape: Sequence[int], offset: int
) -> NDArray[Any]:
    """Return an array in a file as memory of one's own: what is written to it stays in this process.

    It is numpy's mode "c", of which the system refuses more than it has memory for.

    Args:
        file: the open file; it may be closed afterwards.
        dtype: type of the values.
        shape: shape of the array.
        offset: bytes before it.

    Returns:
        The array.
    """
    length = offset + np.dtype(dtype).itemsize * math.prod(shape)
    flags = mmap.MAP_PRIVATE | (_NO_RESERVE if sys.platform == "linux" else 0)
    content = mmap.mmap(file.fileno(), length, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    return np.ndarray(tuple(shape), dtype, content, offset)


def give_back(array: NDArray[Any]) -> None:
    """Give back the memory that a numpy map of a file has taken so far; it is read again when asked for.

    Args:
        array: any array; only of a map that writes to its file, or not at all, is anything given back.
    """
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    if base is not None and base.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        base._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def pieces(array: NDArray[Any], rows: NDArray[np.intp] | None = None) -> Iterator[NDArray[Any]]:
    """Yield an array's rows in pieces of some 30 MB, and give back what a map has taken for each.

    Args:
        array: with shape (N, *).
        rows: numbers of the rows, in their order; None for all.

    Yields:
        The rows of a piece.
    """
    size = max(1, _PIECE // (array.dtype.itemsize * math.prod(array.shape[1:])))
    for first in range(0, len(array if rows is None else rows), size):
        piece = slice(first, first + size)
        yield array[piece] if rows is None else array[rows[piece]]
        give_back(array)
