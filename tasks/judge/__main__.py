"""Judge samples of anybody's beside a data set: no training, no parameters.

SAMPLES is a folder of images (sub-folders are classes), an npz (arr_0, arr_1; samples), an npy, or a zip
of PNG or NPY; a folder of several such files is one set each. With a second one the two are compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from scoremodel.data.exchange import ImageSet, Quantiser, Resize, Scale, read_sets
from scoremodel.io.files import write_text
from tasks.files.stage import run
from tasks.judge.answer import Judged, lines, rows
from tasks.judge.bench import Asked, Bench, bench, named
from tasks.judge.page import page
from tasks.judge.statistics import distances, read_statistics
from tasks.params.errors import ParamsError

__all__ = ["main"]

_LEAST = 8


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.judge", description=__doc__)
    parser.add_argument("samples", type=Path, nargs="+", help="one file or folder, or two")
    parser.add_argument("--dataset", required=True, help="a folder in data/raw")
    parser.add_argument("--subsets", type=int, default=5, help="disjoint ones, for the spread")
    parser.add_argument(
        "--scale", choices=get_args(Scale), help="of real values: [0, 1] or [-1, 1]"
    )
    parser.add_argument(
        "--quantiser", choices=get_args(Quantiser), help="how the writer made grey levels"
    )
    parser.add_argument("--channels", choices=("grey",), help="make colours grey")
    parser.add_argument(
        "--resize", choices=get_args(Resize), help="to the data's size, by this filter"
    )
    parser.add_argument(
        "--statistics", type=Path, help="an npz with mu and sigma: others' reference"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--page", type=Path, help="write a page of it there")
    return parser


def _sizes(sets: dict[str, dict[str, ImageSet]], subsets: int) -> tuple[int, int]:
    """Return how many samples are judged at once, and how often."""
    counts = [len(one.x) for found in sets.values() for one in found.values()]
    if min(counts) < _LEAST:
        raise ParamsError(f"samples: {min(counts)} are not allowed, allowed: at least {_LEAST}")
    given = [len(found) for found in sets.values()]
    if max(given) > 1:
        if min(given) == 1:
            raise ParamsError(
                f"samples: one set and {max(given)} are not allowed, allowed: two of one set each, or two "
                "folders of several"
            )
        return min(counts), min(given)
    parts = min(subsets, min(counts) // _LEAST)
    return min(counts) // parts, parts


def _judged(at: Bench, sets: dict[str, dict[str, ImageSet]], subsets: int) -> list[Judged]:
    count, times = _sizes(sets, subsets)
    parts = at.judged(count, times)
    several = max(len(found) for found in sets.values()) > 1
    whole = parts if several or times == 1 else at.whole(count * times)
    return [Judged(name, whole[name], parts[name]) for name in sets]


def _left_aside(sets: dict[str, dict[str, ImageSet]], judged: Sequence[Judged]) -> Iterator[str]:
    for one in judged:
        there = sum(len(found.x) for found in sets[one.name].values())
        used = one.parts["count"] * len(one.parts["held_out"]["by_seed"])
        if used < there:
            yield f"{one.name}: {there - used} of its {there} samples are left aside: all sets have one size"


def _document(
    asked: Asked, said: Sequence[str], judged: Sequence[Judged], compared: Sequence[Any]
) -> dict[str, Any]:
    """Return all of it, for machines."""
    return {
        "dataset": asked.dataset,
        "said": list(said),
        "samples": {
            one.name: {
                "path": str(asked.sets[one.name]),
                "metrics": rows(one),
                "whole": dict(one.whole),
                "subsets": dict(one.parts),
            }
            for one in judged
        },
        "verdicts": [
            {
                "first": verdict.models[0],
                "second": verdict.models[1],
                "answer": verdict.headline.answer,
                "difference": verdict.headline.difference,
                "interval": [verdict.headline.low, verdict.headline.high],
                "margin": verdict.headline.margin,
            }
            for verdict in compared
            if verdict.headline is not None
        ],
        "versions": {name: version(name) for name in ("scoremodel", "torch", "numpy", "scipy")},
    }


def main(arguments: Sequence[str]) -> None:
    """Judge what the command line names; a mistake is one line and exit status 2."""
    given = _parser().parse_args(arguments)
    if len(given.samples) > 2:
        raise ParamsError(f"samples: {len(given.samples)} are not allowed, allowed: one or two")
    if not 2 <= given.subsets <= 1000:
        raise ParamsError(f"--subsets: {given.subsets} is not allowed, allowed: 2 to 1000")
    said_of = {key: getattr(given, key) for key in ("scale", "quantiser", "channels", "resize")}
    asked = Asked(given.dataset, named(given.samples), said_of)
    sets = {name: read_sets(path, given.scale) for name, path in asked.sets.items()}
    page_path = given.page and given.page.resolve()
    statistics = given.statistics and given.statistics.resolve()
    fixed = statistics and read_statistics(statistics)  # before any work
    with bench(asked) as at:
        judged = _judged(at, sets, given.subsets)
        said, compared = lines(judged)
        said += [*at.said, *_left_aside(sets, judged)]
        if statistics:
            said += distances(statistics, fixed, asked.dataset, [one.name for one in judged])
        if page_path:
            write_text(page_path, page(asked.dataset, said, judged))
    if given.json:
        print(json.dumps(_document(asked, said, judged, compared), indent=1))
        return
    print("\n".join(said))
    for one in judged:
        table = pd.DataFrame(rows(one)).fillna("")
        print(f"\n{one.name}\n{table.to_string(index=False)}")
    if page_path:
        print(f"\npage: {page_path}")


if __name__ == "__main__":
    run(main)
