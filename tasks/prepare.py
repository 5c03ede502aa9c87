"""Stage prepare: a source → train and held-out split as arrays, and a card of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown as said
from scoremodel.data.moments import mean_and_std
from scoremodel.data.sources.base import RawData, load_source
from scoremodel.data.sources.folder import load_folder
from scoremodel.io.files import atomic_folder, atomic_path, write_text
from scoremodel.io.mapped import pieces
from tasks.files.arrays import shown, write_arrays, write_rows
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.params.errors import ParamsError
from tasks.params.fits import require_fit
from tasks.params.source import read_description

__all__ = ["card_of", "main", "read_source", "split"]


def read_source(folder: Path) -> RawData:
    """Return the data that `folder` describes in a `source.yaml`, or else holds as images.

    Args:
        folder: a data set's folder in `data/raw`.

    Returns:
        The data.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    description = read_description(folder)
    if description is None:
        return load_folder(folder)
    path = folder / "source.yaml"
    try:
        return load_source(description, folder=folder)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    except MemoryError as error:
        raise ValueError(f"{path}: its data take more memory than there is") from error


def split(
    raw: RawData, held_out: float | str, limit: int | None, name: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of the training and of the held-out data points, both shuffled.

    Args:
        raw: the data.
        held_out: a fraction (stratified by label, all copies of a data point on one side), or
            "source" for the source's own split, which stays as its authors made it.
        limit: most points of each side.
        name: the data set's name, for the error.
        seed: seed of the shuffle.

    Returns:
        Two arrays of indices that share none.

    Raises:
        ParamsError: if the source has no test split, the fraction leaves a side or a class on it
            empty, or the limit leaves a class without training points.
    """
    where = f"params.yaml: datasets.{name}"
    if held_out == "source":
        if raw.held_out is None:
            raise ParamsError(
                f"{where}.held_out: 'source' is not allowed, allowed: a fraction; "
                "this source has no test split of its own"
            )
        if raw.held_out.all() or not raw.held_out.any():
            raise ParamsError(
                f"{where}.held_out: 'source' is not allowed, allowed: a fraction; "
                "one side of this source's own split is empty"
            )
        numbers, draw = np.arange(len(raw.x)), np.random.default_rng(seed)
        train = draw.permutation(numbers[~raw.held_out])
        test = draw.permutation(numbers[raw.held_out])
    else:
        train, test = _fraction(raw, float(held_out), f"{where}.held_out", seed)
    if limit is not None and raw.labels is not None:
        there = set(raw.labels[train])
        if gone := there - set(raw.labels[train[:limit]]):
            raise ParamsError(
                f"{where}.limit: {limit} is not allowed, allowed: enough for training points of each "
                f"of the {len(there)} classes; it leaves none of {said(raw.classes[min(gone)])}"
            )
    return train[:limit], test[:limit]


def _fraction(
    raw: RawData, held_out: float, where: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return a split by a fraction: of one of each data point, whose copies go where it goes."""
    from sklearn.model_selection import train_test_split

    first = raw.first_copy
    copy = first != np.arange(len(first))
    numbers = np.flatnonzero(~copy)
    labels = None if raw.labels is None else raw.labels[numbers]
    _require_enough(raw, numbers, held_out, where)
    train, test = train_test_split(numbers, test_size=held_out, random_state=seed, stratify=labels)
    if copy.any():
        copies, draw = np.flatnonzero(copy), np.random.default_rng(seed)
        train, test = (
            draw.permutation(np.concatenate([side, copies[np.isin(first[copies], side)]]))
            for side in (train, test)
        )
    return train, test


def _require_enough(raw: RawData, numbers: NDArray[np.intp], held_out: float, where: str) -> None:
    """Refuse a fraction that leaves a side empty, or a class on a side, before scikit-learn does."""
    there = math.ceil(held_out * len(numbers))
    of = f"{where}: {held_out} is not allowed, allowed: a fraction that leaves"
    points = f"of {len(numbers)} {'different ' if len(numbers) < len(raw.x) else ''}data points"
    if min(there, len(numbers) - there) < 1:
        raise ParamsError(f"{of} both sides at least one {points}")
    if raw.labels is None:
        return
    found = np.bincount(raw.labels[numbers], minlength=len(raw.classes))
    rarest, classes = (
        int(np.where(found, found, len(numbers) + 1).argmin()),
        np.count_nonzero(found),
    )
    if found[rarest] < 2:
        raise ParamsError(
            f"{of} both sides at least one of each class; class {said(raw.classes[rarest])} has one "
            f"{points}"
        )
    if min(there, len(numbers) - there) < classes:
        raise ParamsError(
            f"{of} both sides at least {classes} {points}, one of each class; it leaves "
            f"{len(numbers) - there} and {there}"
        )


def _constant(parts: Iterator[NDArray[Any]]) -> bool:
    """Return whether each channel or dimension has one value only."""
    part = next(parts)
    first = part[:1, :, :1, :1] if part.ndim == 4 else part[:1]
    return all(bool((one == first).all()) for one in chain([part], parts))


def card_of(
    name: str,
    raw: RawData,
    train: NDArray[np.intp],
    held_out: NDArray[np.intp],
    digest: str,
    written: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Return a data set's card.

    Args:
        name: the data set's name.
        raw: the data.
        train: numbers of the training points.
        held_out: numbers of the held-out points.
        digest: the SHA-256 of the arrays.
        written: the training points in the order of their numbers, as a file has them, if it does:
            read one after the other, they are had sooner than from among all.

    Returns:
        Shape, levels, mean, standard deviation, classes, licence, hash; how many data points are
        exact copies of others (`copies`), and how many held-out ones of training points (`leaked`).

    Raises:
        ValueError: if the training points are all the same.
    """

    def points() -> Iterator[NDArray[Any]]:
        return pieces(raw.x, train) if written is None else pieces(written)

    if _constant(points()):
        raise ValueError(
            f"data/raw/{name}: all {len(train)} training points have the same value, allowed: data "
            "that vary"
        )
    mean, std = mean_and_std(points, raw.levels)
    counts = None
    if raw.labels is not None:
        found = np.bincount(raw.labels[train], minlength=len(raw.classes))
        counts = {label: int(n) for label, n in zip(raw.classes, found, strict=True)}
    low, high = (0, raw.levels - 1) if raw.levels else (float(raw.x.min()), float(raw.x.max()))
    first = raw.first_copy
    chosen = first[np.concatenate([train, held_out])]
    return {
        "name": name,
        "shape": list(raw.x.shape[1:]),
        "count": {"train": len(train), "held_out": len(held_out)},
        "copies": len(chosen) - len(np.unique(chosen)),
        "leaked": int(np.isin(first[held_out], first[train]).sum()),
        "value_range": [low, high],
        "levels": raw.levels,
        "mean": mean.tolist(),
        "std": std,
        "class_counts": counts,
        "mixture": raw.mixture,
        "source": raw.source,
        "licence": raw.licence,
        "sha256": digest,
    }


def _require_kind(raw: RawData, gives: str, files: Configuration) -> None:
    """Refuse data of another kind than `check` took them for, by which it chose the networks."""
    found = "images" if raw.x.ndim == 4 else "vectors"
    if found != gives:
        raise ValueError(
            f"{files.raw}: holds {found} now, and held {gives} when params.yaml was checked; run "
            "dvc repro --force check, and then dvc repro"
        )


def _about_copies(raw: RawData, card: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to be said of exact copies."""
    count, name = sum(card["count"].values()), card["name"]
    if card["copies"]:
        yield f"{name}: {card['copies']} of {count} data points are exact copies of others"
        if raw.labels is not None and (other := raw.labels != raw.labels[raw.first_copy]).any():
            yield f"{name}: {int(other.sum())} copies have another label than the first of them"
    if card["leaked"]:
        yield (
            f"{name}: {card['leaked']} of {card['count']['held_out']} held-out data points are exact "
            "copies of training points; the source's own split stays as it is, a fraction for "
            f"datasets.{name}.held_out keeps copies on one side"
        )


def _write(
    files: Configuration, raw: RawData, train: NDArray[np.intp], held_out: NDArray[np.intp]
) -> tuple[dict[str, Any], list[str]]:
    """Write everything, or nothing, and return the card and what is doubtful about it."""
    splits = {"train": (raw.x, train), "held_out": (raw.x, held_out)}
    if raw.labels is not None:
        labels = raw.labels.astype(np.int64)
        splits |= {"train_labels": (labels, train), "held_out_labels": (labels, held_out)}
    with (
        atomic_path(files.card) as card_path,
        atomic_path(files.shown) as shown_path,
        atomic_folder(files.arrays) as arrays,
    ):
        digest = write_rows(arrays, splits)
        written = np.load(arrays / "train.npy", mmap_mode="r")
        card = card_of(files.dataset, raw, train, held_out, digest, written)
        doubts = require_fit(card, has_own=(files.raw / "source.yaml").exists())
        write_text(card_path, json.dumps(card, indent=2) + "\n")
        first = shown(np.load(arrays / "held_out.npy", mmap_mode="r"))
        write_arrays(shown_path, {"data": first}, {"picture": "grid", "levels": raw.levels})
    return card, doubts


def main(files: Configuration) -> None:
    """Write the rows of train, held_out and, where known, their labels; the card; what to show."""
    name, how = files.dataset, resolved(f"datasets/{files.dataset}")
    raw = read_source(files.raw)
    _require_kind(raw, how["gives"], files)
    if raw.x.ndim == 2 and raw.x.shape[1] < 2:
        raise ValueError(f"{files.raw}: vectors of dimension 1, allowed: at least 2")
    train, held_out = split(raw, how["held_out"], how.get("limit"), name, how["seed"])
    card, doubts = _write(files, raw, train, held_out)
    for line in (*doubts, *_about_copies(raw, card)):
        print(f"warning: {line}", file=sys.stderr)
    shape = "×".join(map(str, card["shape"]))
    print(
        f"{name}: {len(train)} train and {len(held_out)} held-out data points of shape {shape} "
        f"({raw.source})"
    )


if __name__ == "__main__":
    run_stage(main, "dataset")
