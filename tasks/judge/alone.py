"""Samples beside somebody's statistics alone: the distance, and what nobody can know without the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoremodel.data.exchange import ImageSet, fitted
from scoremodel.evaluation.comparison import Comparison, Side, compare
from tasks.external import disjoint
from tasks.files.extraction import JUDGE, Extracted
from tasks.judge.bench import sizes
from tasks.judge.chosen import extractor_for
from tasks.judge.statistics import Statistics
from tasks.results.spread import spread
from tasks.results.table import with_spread

__all__ = ["Distance", "alone", "alone_lines"]

_UNKNOWN = (
    "Without --dataset nobody can say how far real data are by so many samples (the floor), whether the "
    "samples copy, nor which of the data they lack: it is the distance alone."
)


@dataclass(frozen=True)
class Distance:
    """How far one set of samples is from somebody's statistics.

    Args:
        name: what it goes by.
        metric: the name of the distance.
        count: number of samples of a subset.
        whole: the distance of all of them, by `spread`; of each set, if several were given.
        parts: that of the subsets.
        said: what was assumed of the samples, or done to them.
    """

    name: str
    metric: str
    count: int
    whole: Mapping[str, Any]
    parts: Mapping[str, Any]
    said: tuple[str, ...]


def _kind(
    one: ImageSet, config: Mapping[str, Any], card: Mapping[str, Any]
) -> tuple[Sequence[int], int | None]:
    """Return shape and grey levels that samples are brought to: the card's, the extractor's or their own."""
    own = {"shape": one.x.shape[1:], "levels": None if one.x.ndim == 2 else 256}
    known = {**own, **config, **card}
    return known["shape"], known["levels"]


def alone(
    sets: Mapping[str, Mapping[str, ImageSet]],
    paths: Mapping[str, Path],
    statistics: Statistics,
    how: Mapping[str, Any],
    named: bool,
    said_of: Mapping[str, Any],
    subsets: int,
    device: torch.device,
) -> list[Distance]:
    """Return the distances of samples to statistics.

    Args:
        sets: name → what its file or folder holds.
        paths: name → that file or folder.
        statistics: what they are compared with.
        how: the block `evaluation.extractor`.
        named: whether the command line says it.
        said_of: what is known of the files: `scale`, `quantiser`, `channels`, `resize`.
        subsets: how many disjoint ones are made of a single set.
        device: where the extractor runs.

    Returns:
        One for each name.

    Raises:
        ParamsError: if no extractor is known.
        ValueError: if the samples are not the extractor's kind, or the statistics are another's.
    """
    first = next(iter(next(iter(sets.values())).values()))
    extractor, digest = extractor_for(statistics, how, named, first.x.shape[1:])
    extractor.to(device)
    metric = Extracted(JUDGE, extractor, digest, {}).metric
    statistics.require(metric, digest)
    shape, levels = _kind(first, extractor.config, statistics.card or {})
    count, times = sizes(sets, subsets)
    several = max(map(len, sets.values())) > 1
    found = []
    for name, given in sets.items():
        rows: list[NDArray[np.float32]] = []
        said: dict[str, None] = {}  # in their order, each once
        for one in given.values():
            try:
                images = fitted(
                    one,
                    shape,
                    levels,
                    grey=said_of["channels"] == "grey",
                    resize=said_of["resize"],
                    quantiser=said_of["quantiser"],
                )
            except ValueError as error:
                raise ValueError(f"{paths[name]}: {error}") from None
            said |= dict.fromkeys(images.said)
            rows += [
                extractor.features(torch.from_numpy(images.x[chosen])).numpy()
                for chosen in disjoint(images, count, 1 if several else times)
            ]
        statistics.require_width(rows[0].shape[1])
        parts = spread(statistics.distances(rows[:times]))
        whole = parts if several else spread(statistics.distances([np.concatenate(rows)]))
        found.append(Distance(name, metric, count, whole, parts, tuple(said)))
    return found


def alone_lines(
    statistics: Statistics, found: Sequence[Distance]
) -> tuple[list[str], Comparison | None]:
    """Return what there is to say of distances: which of two is nearer first, if there are two.

    Args:
        statistics: what the samples were compared with.
        found: the distances.

    Returns:
        The sentences, and the comparison if there are two sets with a spread.
    """
    said, comparison = [], None
    several = [len(one.parts["by_seed"]) for one in found]
    if len(found) == 2 and min(several) > 1:
        first, second = (Side(np.array([one.parts["by_seed"]])) for one in found)
        comparison = compare(first, second, "checkpoints")
        word = {"better": "nearer than", "worse": "farther than"}.get(
            comparison.answer, "not told from"
        )
        said.append(
            f"{found[0].metric} to the statistics in {statistics.path.name}: {found[0].name} is {word} "
            f"{found[1].name}: difference {comparison.difference:+.3g}, 95 % interval "
            f"[{comparison.low:+.3g}, {comparison.high:+.3g}], of samples alone, in sets of "
            f"{found[0].count}."
        )
    for one, times in zip(found, several, strict=True):
        value = with_spread(one.whole["mean"], one.whole["std"])
        count = one.count if one.whole is one.parts else one.count * times
        said.append(statistics.sentence(one.name, one.metric, f"{value} (N = {count})"))
        if one.whole is not one.parts:
            within = with_spread(one.parts["mean"], one.parts["std"])
            said.append(
                f"{one.name}: of {times} subsets of N = {one.count} it is {within}; it falls with N, so it "
                "stands beside distances of as many samples only."
            )
    said.append(_UNKNOWN)
    said += [f"{one.name}: {line}" for one in found for line in one.said]
    return said, comparison
