"""List what runs have left and nobody needs any more, or remove it.

What somebody uses stays, whatever its age.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.files.stage import run
from tasks.params.asked import Budget, seconds
from tasks.params.errors import refusal
from tasks.results.cleaning import clean

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """List what is older than that, or remove it."""
    parser = argparse.ArgumentParser(prog="python -m flows.clean", description=__doc__)
    parser.add_argument("--older", default="30d", help="such as 2h or 30d, which is the default")
    parser.add_argument("--yes", action="store_true", help="remove it")
    given = parser.parse_args(arguments)
    try:
        before = time.time() - seconds(TypeAdapter(Budget).validate_python(given.older))
    except ValidationError as error:
        raise ValueError(f"--older: {refusal(error.errors())}") from None
    sizes = clean(Path.cwd(), before, given.yes)
    what = "removed" if given.yes else "to remove them: --yes"
    print(f"{len(sizes)} things, {sum(sizes) / 1e6:.2f} MB; {what}")


if __name__ == "__main__":
    run(main)
