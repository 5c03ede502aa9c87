"""torchvision's image data sets."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scoremodel.bounds import shown
from scoremodel.data.sources.base import SOURCES, RawData

__all__ = ["load_torchvision"]


@SOURCES.register("torchvision", gives="images")
def load_torchvision(name: str, root: str, download: bool = True) -> RawData:
    """Return one of torchvision's image data sets that have a train flag, both splits.

    Args:
        name: the data set's class in `torchvision.datasets`, such as "FashionMNIST".
        root: folder that holds the files or will receive them.
        download: whether missing files may be downloaded; present ones are checked by their MD5.

    Returns:
        Grey levels with shape (N, C, H, W); the data set's own test split is `held_out`.

    Raises:
        ValueError: if there is no such data set, or its files are missing or damaged.
    """
    from torchvision import datasets

    cls = getattr(datasets, name, None)
    flags = inspect.signature(cls).parameters if inspect.isclass(cls) else {}
    if not {"root", "train", "download"} <= set(flags):
        allowed = [
            other
            for other in datasets.__all__
            if {"root", "train", "download"}
            <= set(inspect.signature(getattr(datasets, other)).parameters)
        ]
        raise ValueError(
            f"name: {shown(name)} is no torchvision data set with a train flag, "
            f"allowed: {', '.join(sorted(allowed))}"
        )
    try:
        with _unpacking_root(Path(root), name) as unpacked:
            splits = [cls(unpacked, train=t, download=download) for t in (True, False)]  # type: ignore[misc]
            arrays = [np.asarray(split.data) for split in splits]
            targets = [np.asarray(split.targets) for split in splits]
    except Exception as error:  # torchvision raises whatever its download or archive code does
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"root: {shown(root)} holds no usable {name} files ({reason})") from error
    shapes = [array.shape for array in arrays]
    if {shape[1:] for shape in shapes} != {shapes[0][1:]} or len(shapes[0]) not in (3, 4):
        raise ValueError(
            f"name: {name!r} gives arrays of shapes {shapes[0]} and {shapes[1]}, allowed: images of "
            "one size, (N, H, W) or (N, H, W, C)"
        )
    if any(target.ndim != 1 for target in targets):
        found = " and ".join(str(target.shape) for target in targets)
        raise ValueError(f"name: {name!r} gives labels of shapes {found}, allowed: (N,)")
    x = np.concatenate(arrays)
    x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    labels = np.concatenate(targets)
    held_out = np.concatenate([np.full(len(a), i == 1) for i, a in enumerate(arrays)])
    return RawData(
        x=np.ascontiguousarray(x),
        labels=labels,
        levels=256,
        classes=[str(label) for label in getattr(splits[0], "classes", sorted(set(labels)))],
        held_out=held_out,
        source=f"torchvision.datasets.{name}",
        licence="see the data set's authors",
    )


@contextmanager
def _unpacking_root(root: Path, name: str) -> Iterator[str]:
    """Yield a root in which torchvision may unpack: a copy of the archives, if they are there.

    torchvision unpacks beside the archives, which a read-only folder forbids, and takes unpacked
    files for good without looking at the archives' MD5.
    """
    archives = sorted((root / name / "raw").glob("*.gz"))
    if not archives:
        yield str(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, name, "raw")
        raw.mkdir(parents=True)
        for archive in archives:
            shutil.copyfile(archive, raw / archive.name)
        yield folder
