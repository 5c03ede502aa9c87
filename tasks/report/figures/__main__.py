"""Draw a table's distance against NFE: `python -m tasks.report.figures results/table.csv FIGURE.svg`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scoremodel.io.files import write_text
from tasks.files.stage import run
from tasks.report.figures.distance import distance_figure
from tasks.results.table import read_table

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Draw the table that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tasks.report.figures", description=__doc__)
    parser.add_argument("table", type=Path, help="a results/table.csv of one data set")
    parser.add_argument("figure", type=Path, help="the SVG file to write")
    given = parser.parse_args(arguments)
    rows = read_table(given.table)
    if rows["dataset"].nunique() != 1:
        raise ValueError(f"{given.table}: has {rows['dataset'].nunique()} data sets, allowed: 1")
    write_text(given.figure, distance_figure(rows) + "\n")
    print(given.figure)


if __name__ == "__main__":
    run(main)
