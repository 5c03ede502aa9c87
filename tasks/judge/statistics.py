"""Mean and covariance of features in a file of their own: ours for others, and others' for us.

`mu` (D,) and `sigma` (D, D), float64, are what pytorch-fid, clean-fid and EDM write and read. No such file
says of which extractor, size or number of images it is; beside ours lies a card that does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from typing_extensions import TypedDict

from scoremodel.bounds import shown
from scoremodel.evaluation.distance import Moments, frechet_distance, moments
from scoremodel.io.files import atomic_path, write_text
from tasks.files.arrays import read_arrays, read_card
from tasks.files.documents import read_json
from tasks.files.layout import EXTERNAL, Configuration

__all__ = ["Split", "distances", "read_statistics", "write_statistics"]

Split = Literal["train", "held_out", "all"]


class _Card(TypedDict):
    metric: str
    extractor: str
    count: int
    dataset: str


def write_statistics(path: Path, dataset: str, split: Split = "held_out") -> None:
    """Write the moments of a data set's features, and beside them a card; the current folder has both.

    Args:
        path: the npz; the card goes by the same name with the ending `.json`.
        dataset: the data set, whose reference is there.
        split: of which part of the data.

    Raises:
        OSError: if it cannot be written.
    """
    files = Configuration(dataset)
    arrays, info = read_arrays(files.real_features, ("metric", "extractor"))
    card = read_card(files.card)
    sides = {"train": arrays["train"][arrays["fresh"]], "held_out": arrays["held_out"]}
    chosen = np.concatenate([*sides.values()]) if split == "all" else sides[split]
    found = moments(chosen, f"the features of {dataset}")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, mu=found.mean, sigma=found.covariance)
    said: dict[str, Any] = {
        "metric": info["metric"],
        "extractor": info["extractor"],
        "environment": info["environment"],
        "dataset": dataset,
        "data_sha256": card["sha256"],
        "shape": card["shape"],
        "levels": card["levels"],
        "resize": "by the extractor, from the data's own size",
        "split": split,
        "count": len(chosen),
        "width": chosen.shape[1],
        "licence": card.get("licence"),
        "versions": {name: version(name) for name in ("scoremodel", "torch", "numpy")},
    }
    write_text(path.with_suffix(".json"), json.dumps(said, indent=1) + "\n")


def distances(path: Path, fixed: Moments, dataset: str, names: Sequence[str]) -> list[str]:
    """Return how far samples are from others' statistics, and what of these is not known.

    Args:
        path: their file.
        fixed: what it holds.
        dataset: the data set, by whose extractor the samples' features were made.
        names: the samples', in the current folder.

    Returns:
        A sentence for each.

    Raises:
        ValueError: if the file holds no such statistics, or others than this extractor's.
    """
    info = read_arrays(Configuration(dataset).real_features, ("metric", "extractor"))[1]
    card = path.with_suffix(".json")
    if card.is_file():
        known = read_json(card, _Card, "remove it, and what it said is not known")
        if known["extractor"] != info["extractor"]:
            raise ValueError(
                f"{card}: statistics of {shown(known['metric'])}, allowed: of this run's extractor, "
                f"{info['metric']}"
            )
        of = f"of N = {known['count']} of {known['dataset']}"
    else:
        of = "whose extractor, resize and N no file says: true only if they are this run's"
    found = []
    for name in names:
        rows, _ = read_arrays(Configuration(dataset, name, sampler=EXTERNAL).features)
        width = next(iter(rows.values())).shape[1]
        if width != len(fixed.mean):
            raise ValueError(
                f"{path}: mu of {len(fixed.mean)} features, allowed: {width}, the extractor's"
            )
        values = [frechet_distance(one, fixed) for one in rows.values()]
        found.append(
            f"{name}: {info['metric']} to the statistics in {path.name} {np.mean(values):.4g}, {of}."
        )
    return found


def read_statistics(path: Path) -> Moments:
    """Return the moments that a file of others holds.

    Args:
        path: an npz with `mu` and `sigma`.

    Returns:
        Them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no such statistics.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = file["mu"], file["sigma"]
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy and zipfile name no one kind for a damaged file
        raise ValueError(
            f"{path}: holds no mu and sigma, or is damaged; allowed: an npz as pytorch-fid writes it"
        ) from error
    wrong = mean.ndim != 1 or covariance.shape != (len(mean), len(mean))
    if wrong or not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(
            f"{path}: mu of shape {mean.shape} and sigma of {covariance.shape}, allowed: finite (D,) and "
            "(D, D)"
        )
    return Moments(mean.astype(np.float64), covariance.astype(np.float64), None)
