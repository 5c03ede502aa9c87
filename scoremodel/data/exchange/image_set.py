"""A set of images, or of vectors, as it was read from a file, with what is known of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown

__all__ = ["ImageSet", "Scale", "class_numbers", "require_room", "stacked"]

Scale = Literal["unit", "symmetric", "levels"]
"""What a real-valued array's numbers mean: [0, 1], [−1, 1], or grey levels 0 … L−1."""

_MOST_CLASSES = 65_536


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images or vectors in the order in which they were read.

    Args:
        x: grey levels (uint8) with shape (N, C, H, W), or vectors (float32) with shape (N, D).
        labels: class numbers with shape (N,), or None.
        classes: names of the classes, in the order of their numbers.
        said: one sentence for each thing that was assumed or done.
        levels: number of grey levels, None of vectors.
        quantised: whether it was the reader that rounded real values to grey levels, so that nothing
            has to be assumed of the writer.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    classes: list[str] = field(default_factory=list)
    said: tuple[str, ...] = ()
    levels: int | None = 256
    quantised: bool = False


def require_room(size: int, where: str) -> None:
    """Refuse what would take more than half of this machine's memory.

    Args:
        size: bytes that it takes.
        where: file (and member), for the error.

    Raises:
        ValueError: if it does.
    """
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if size > most:
        raise ValueError(
            f"{where}: takes {size / 2**30:,.1f} GiB of memory, allowed: half of this machine's, "
            f"{most / 2**30:.1f} GiB"
        )


def class_numbers(labels: Any, count: int, where: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return class numbers as int64 with the classes' names, which are their numbers.

    Args:
        labels: integers, or one-hot rows.
        count: number of images.
        where: file and member, for the error.

    Returns:
        The numbers with shape (N,), and "0" … for as many classes as the highest number says.

    Raises:
        ValueError: if they are none of those, or not one for each image.
    """
    try:
        numbers = np.asarray(labels)
    except ValueError:  # rows of different lengths
        numbers = np.empty(0, object)
    if numbers.ndim == 2 and numbers.dtype.kind in "iufb" and numbers.shape[1]:
        if not ((numbers == 0) | (numbers == 1)).all() or (numbers.sum(axis=1) != 1).any():
            raise ValueError(
                f"{where}: labels of shape {numbers.shape} that are not one-hot, allowed: one number "
                "for each image, or one-hot rows"
            )
        highest, numbers = numbers.shape[1] - 1, numbers.argmax(axis=1)
    elif numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise ValueError(
            f"{where}: labels of type {numbers.dtype} and shape {numbers.shape}, allowed: integers, "
            "one for each image, or one-hot rows"
        )
    else:
        highest = int(numbers.max(initial=0))
    if len(numbers) != count:
        raise ValueError(
            f"{where}: {len(numbers):,} labels, allowed: one for each of {count:,} images"
        )
    lowest = int(numbers.min(initial=0))
    if lowest < 0 or highest >= _MOST_CLASSES:
        raise ValueError(
            f"{where}: labels from {lowest} to {highest}, allowed: 0 to {_MOST_CLASSES - 1:,}"
        )
    return numbers.astype(np.int64), [str(number) for number in range(highest + 1)]


def stacked(images: Iterable[tuple[str, NDArray[np.uint8]]], count: int) -> NDArray[np.uint8]:
    """Return images of one size as one array, with three channels if any has three.

    Args:
        images: each one's name, for the error, and its grey levels with shape (1 or 3, H, W).
        count: how many there are.

    Returns:
        Their grey levels with shape (N, C, H, W).

    Raises:
        ValueError: if sizes differ, or they take more memory than is allowed.
    """
    found: list[NDArray[np.uint8]] = []
    first = ""
    for name, image in images:
        if not found:
            first = name
            require_room(2 * count * image.size, name)  # a list of them, and the array
        elif image.shape[1:] != found[0].shape[1:]:
            (height, width), (other_height, other_width) = image.shape[1:], found[0].shape[1:]
            raise ValueError(
                f"{name}: is {width}×{height} pixels but {shown(first.rpartition(': ')[2])} is "
                f"{other_width}×{other_height}; all images must have one size"
            )
        found.append(image)
    channels = max(len(image) for image in found)
    return np.stack([np.broadcast_to(one, (channels, *one.shape[1:])) for one in found])
