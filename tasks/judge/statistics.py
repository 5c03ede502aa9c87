"""Mean and covariance of features in a file of their own: ours for others, and others' for us.

`mu` (D,) and `sigma` (D, D), float64, are what pytorch-fid, clean-fid and EDM write and read. No such file
says of which extractor, size or number of images it is; beside ours lies a card that does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from scoremodel.bounds import shown
from scoremodel.evaluation.distance import Moments, frechet_distance, moments
from scoremodel.io.files import atomic_path, write_text
from tasks.files.arrays import read_arrays, read_card
from tasks.files.documents import read_json
from tasks.files.layout import Configuration

__all__ = ["Split", "Statistics", "read_statistics", "write_statistics"]

Split = Literal["train", "held_out", "all"]


class _Card(TypedDict):
    metric: str
    extractor: str
    count: int
    dataset: str
    shape: list[int]
    levels: int | None


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


@dataclass(frozen=True)
class Statistics:
    """The mean and covariance of somebody's features, and what is known of them.

    Args:
        path: the file.
        moments: what it holds.
        card: what the card beside it says; None if there is none.
    """

    path: Path
    moments: Moments
    card: Mapping[str, Any] | None

    @property
    def card_path(self) -> Path:
        """Where the card is looked for."""
        return self.path.with_suffix(".json")

    def require(self, metric: str, digest: str) -> None:
        """Refuse an extractor by which they were not made, as far as that is known.

        Args:
            metric: the name of the distance by the extractor.
            digest: the hash of the extractor's file.

        Raises:
            ValueError: if the card names another one.
        """
        if self.card is not None and self.card["extractor"] != digest:
            raise ValueError(
                f"{self.card_path}: statistics of {shown(self.card['metric'])}, allowed: of this run's "
                f"extractor, {metric}"
            )

    def require_width(self, width: int) -> None:
        """Refuse features of another number than they are of.

        Args:
            width: the extractor's number of features.

        Raises:
            ValueError: if it is another.
        """
        if width != len(self.moments.mean):
            raise ValueError(
                f"{self.path}: mu of {len(self.moments.mean)} features, allowed: {width}, the extractor's"
            )

    def distances(self, sets: Sequence[NDArray[np.float32]]) -> list[float]:
        """Return the Fréchet distance to them of each set of features with shape (N, D)."""
        return [frechet_distance(one, self.moments) for one in sets]

    def sentence(self, name: str, metric: str, value: str) -> str:
        """Return what a distance is to, and what of these statistics is not known.

        Args:
            name: the samples'.
            metric: the name of the distance.
            value: the distance.

        Returns:
            The sentence.
        """
        of = "whose extractor, resize and N no file says: true only if they are this run's"
        if self.card is not None:
            of = f"of N = {self.card['count']} of {self.card['dataset']}"
        return f"{name}: {metric} to the statistics in {self.path.name} {value}, {of}."


def read_statistics(path: Path) -> Statistics:
    """Return what a file of others holds, and what the card beside it says.

    Args:
        path: an npz with `mu` and `sigma`; its card has the same name with the ending `.json`.

    Returns:
        Them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no such statistics, or the card is damaged.
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
    moments = Moments(mean.astype(np.float64), covariance.astype(np.float64), None)
    card = path.with_suffix(".json")
    known = None
    if card.is_file():
        known = read_json(card, _Card, "remove it, and what it said is not known")
    return Statistics(path, moments, known)
