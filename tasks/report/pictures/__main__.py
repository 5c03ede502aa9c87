"""Draw one file of arrays: `python -m tasks.report.pictures artifacts/shown/NAME.npz PICTURE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tasks.files.stage import run
from tasks.report.pictures.base import draw

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Draw the file that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tasks.report.pictures", description=__doc__)
    parser.add_argument("shown", type=Path, help="a file of artifacts/shown")
    parser.add_argument("picture", type=Path, help="the file to write; its ending is the picture's")
    given = parser.parse_args(arguments)
    print(draw(given.shown, given.picture.with_suffix("")))


if __name__ == "__main__":
    run(main)
