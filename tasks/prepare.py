"""Stage prepare: a source → train and held-out split as arrays, and a card of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scoremodel.data.sources.base import RawData, load_source
from scoremodel.data.sources.folder import load_folder
from scoremodel.io.files import write_text
from tasks.files.arrays import chunked, read_rows, shown, write_arrays, write_rows
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.params.errors import ParamsError
from tasks.params.fits import require_fit

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
    description = folder / "source.yaml"
    if not description.exists():
        return load_folder(folder)
    try:
        content = YAML(typ="safe", pure=True).load(description)
    except YAMLError as error:
        raise ValueError(
            f"{description}: not valid YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{description}: {content!r} is not allowed, allowed: a block of keys")
    try:
        return load_source(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{description}: {error}") from error


def split(
    raw: RawData, held_out: float | str, limit: int | None, name: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of the training and of the held-out data points, both shuffled.

    Args:
        raw: the data.
        held_out: a fraction (stratified by label), or "source" for the source's own split.
        limit: most points of each side.
        name: the data set's name, for the error.
        seed: seed of the shuffle.

    Returns:
        Two arrays of indices that share none.

    Raises:
        ParamsError: if the source has no test split, or the fraction leaves a side empty.
    """
    from sklearn.model_selection import train_test_split

    where = f"params.yaml: datasets.{name}.held_out"
    numbers = np.arange(len(raw.x))
    if held_out == "source":
        if raw.held_out is None:
            raise ParamsError(
                f"{where}: 'source' is not allowed, allowed: a fraction; "
                "this source has no test split of its own"
            )
        draw = np.random.default_rng(seed)
        train = draw.permutation(numbers[~raw.held_out])
        test = draw.permutation(numbers[raw.held_out])
    else:
        try:
            train, test = train_test_split(
                numbers, test_size=held_out, random_state=seed, stratify=raw.labels
            )
        except ValueError as error:
            raise ParamsError(
                f"{where}: {held_out} does not split {len(numbers)} points: {error}"
            ) from error
    return train[:limit], test[:limit]


def _moments(x: NDArray[Any], rows: NDArray[np.intp], levels: int | None) -> tuple[Any, float]:
    """Return the scaled data's mean, by channel or dimension, and their deviation from it."""
    axes = (0, 2, 3) if x.ndim == 4 else (0,)
    each = math.prod(x.shape[1:]) * len(rows)

    def parts() -> Iterator[NDArray[np.float64]]:
        for part in chunked(rows, x):
            scaled = x[part].astype(np.float64)
            yield scaled if levels is None else scaled * (2 / (levels - 1)) - 1

    count = each // math.prod(x.shape[1:2])
    mean = sum(part.sum(axis=axes, keepdims=True) for part in parts()) / count
    square = sum(float(np.sum((part - mean) ** 2)) for part in parts())
    return mean, math.sqrt(square / each)


def card_of(
    name: str, raw: RawData, train: NDArray[np.intp], held_out: NDArray[np.intp], digest: str
) -> dict[str, Any]:
    """Return a data set's card.

    Args:
        name: the data set's name.
        raw: the data.
        train: numbers of the training points.
        held_out: numbers of the held-out points.
        digest: the SHA-256 of the arrays.

    Returns:
        Shape, levels, mean, standard deviation, classes, licence, hash.
    """
    mean, std = _moments(raw.x, train, raw.levels)
    counts = None
    if raw.labels is not None:
        found = np.bincount(raw.labels[train], minlength=len(raw.classes))
        counts = {label: int(n) for label, n in zip(raw.classes, found, strict=True)}
    low, high = (0, raw.levels - 1) if raw.levels else (float(raw.x.min()), float(raw.x.max()))
    return {
        "name": name,
        "shape": list(raw.x.shape[1:]),
        "count": {"train": len(train), "held_out": len(held_out)},
        "value_range": [low, high],
        "levels": raw.levels,
        "mean": mean.flatten().tolist(),
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


def main(files: Configuration) -> None:
    """Write the rows of train, held_out and, where known, their labels; the card; what to show."""
    name, how = files.dataset, resolved(f"datasets/{files.dataset}")
    raw = read_source(files.raw)
    _require_kind(raw, how["gives"], files)
    if raw.x.ndim == 2 and raw.x.shape[1] < 2:
        raise ValueError(f"{files.raw}: vectors of dimension 1, allowed: at least 2")
    train, held_out = split(raw, how["held_out"], how.get("limit"), name, how["seed"])
    splits = {"train": (raw.x, train), "held_out": (raw.x, held_out)}
    if raw.labels is not None:
        labels = raw.labels.astype(np.int64)
        splits |= {"train_labels": (labels, train), "held_out_labels": (labels, held_out)}
    card = card_of(name, raw, train, held_out, digest="")
    for line in require_fit(card, has_own=(files.raw / "source.yaml").exists()):
        print(f"warning: {line}", file=sys.stderr)
    card["sha256"] = write_rows(files.arrays, splits)
    write_text(files.card, json.dumps(card, indent=2) + "\n")
    write_arrays(
        files.shown,
        {"data": shown(read_rows(files.arrays)["held_out"])},
        {"picture": "grid", "levels": raw.levels},
    )
    shape = "×".join(map(str, card["shape"]))
    print(f"{name}: {len(train)} train and {len(held_out)} held-out data points of shape {shape}")


if __name__ == "__main__":
    run_stage(main, "dataset")
