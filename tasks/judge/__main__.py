"""Judge samples of anybody's beside a data set, or its statistics alone: no training, no parameters.

SAMPLES is a folder of images (sub-folders are classes), an npz (arr_0, arr_1; samples), an npy, or a zip
of PNG or NPY; a folder of several such files is one set each. With a second one the two are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from scoremodel.data.exchange import ImageSet, Quantiser, Resize, Scale, read_sets
from scoremodel.io.files import write_text
from tasks.files.device import Machine, set_up_device
from tasks.files.stage import run
from tasks.judge.alone import alone, alone_lines
from tasks.judge.answer import Judged, lines, rows
from tasks.judge.bench import Asked, Bench, bench, named, sizes
from tasks.judge.chosen import extractor_block
from tasks.judge.page import page
from tasks.judge.statistics import Statistics, read_statistics
from tasks.params.errors import ParamsError
from tasks.params.load import load_params

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.judge", description=__doc__)
    parser.add_argument("samples", type=Path, nargs="+", help="one file or folder, or two")
    parser.add_argument("--dataset", help="a folder in data/raw; or --statistics alone")
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
    parser.add_argument(
        "--extractor",
        metavar="KIND[:NAME]",
        help="in place of params.yaml's: auto, classifier, shipped:NAME, inception:MODE, torchscript:FILE",
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--page", type=Path, help="write a page of it there")
    return parser


def _judged(at: Bench, sets: dict[str, dict[str, ImageSet]], subsets: int) -> list[Judged]:
    count, times = sizes(sets, subsets)
    parts = at.judged(count, times)
    several = max(len(found) for found in sets.values()) > 1
    whole = parts if several or times == 1 else at.whole(count * times)
    return [Judged(name, whole[name], parts[name]) for name in sets]


def _times(one: Judged) -> int:
    return len(one.parts["held_out"]["by_seed"])


def _left_aside(
    sets: Mapping[str, Mapping[str, ImageSet]], used: Mapping[str, int]
) -> Iterator[str]:
    for name, count in used.items():
        there = sum(len(found.x) for found in sets[name].values())
        if count < there:
            yield f"{name}: {there - count} of its {there} samples are left aside: all sets have one size"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("scoremodel", "torch", "numpy", "scipy")}


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
        "versions": _versions(),
    }


def _alone(
    given: argparse.Namespace,
    asked: Asked,
    sets: dict[str, dict[str, ImageSet]],
    statistics: Statistics,
) -> None:
    """Print the distance to somebody's statistics, which is all that there is without the data."""
    params = load_params()
    machine = Machine(params.threads, params.device, params.tf32, params.deterministic)
    with redirect_stdout(sys.stderr):
        device = set_up_device(machine)
    how = extractor_block(asked.extractor, params.evaluation.extractor.model_dump())
    named = asked.extractor is not None
    found = alone(sets, asked.sets, statistics, how, named, asked.said_of, given.subsets, device)
    said, comparison = alone_lines(statistics, found)
    said += _left_aside(sets, {one.name: one.count * len(one.parts["by_seed"]) for one in found})
    if not given.json:
        print("\n".join(said))
        return
    document = {
        "statistics": str(given.statistics),
        "said": said,
        "samples": {
            one.name: {
                "path": str(asked.sets[one.name]),
                "metric": one.metric,
                "count": one.count,
                "whole": dict(one.whole),
                "subsets": dict(one.parts),
            }
            for one in found
        },
        "verdicts": [
            {
                "first": found[0].name,
                "second": found[1].name,
                "answer": comparison.answer,
                "difference": comparison.difference,
                "interval": [comparison.low, comparison.high],
                "margin": None,
            }
        ]
        if comparison
        else [],
        "versions": _versions(),
    }
    print(json.dumps(document, indent=1))


def main(arguments: Sequence[str]) -> None:
    """Judge what the command line names; a mistake is one line and exit status 2."""
    given = _parser().parse_args(arguments)
    if len(given.samples) > 2:
        raise ParamsError(f"samples: {len(given.samples)} are not allowed, allowed: one or two")
    if not 2 <= given.subsets <= 1000:
        raise ParamsError(f"--subsets: {given.subsets} is not allowed, allowed: 2 to 1000")
    if given.dataset is None and not given.statistics:
        raise ParamsError("--dataset: missing, allowed: a folder in data/raw; or --statistics FILE")
    if given.dataset is None and given.page:
        raise ParamsError("--page: is not allowed without --dataset, allowed: --json")
    said_of = {key: getattr(given, key) for key in ("scale", "quantiser", "channels", "resize")}
    asked = Asked(given.dataset or "", named(given.samples), said_of, given.extractor)
    sets = {name: read_sets(path, given.scale) for name, path in asked.sets.items()}
    page_path = given.page and given.page.resolve()
    # All that may be wrong with them is said before any work.
    statistics = given.statistics and read_statistics(given.statistics.resolve())
    if given.dataset is None:
        _alone(given, asked, sets, statistics)
        return
    with bench(asked) as at:
        if statistics:
            at.require(statistics)
        judged = _judged(at, sets, given.subsets)
        said, compared = lines(judged)
        used = {one.name: one.parts["count"] * _times(one) for one in judged}
        said += [*at.said, *_left_aside(sets, used)]
        if statistics:
            said += at.distances(statistics)
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
