"""List what runs have left and nobody needs any more, or remove it.

What somebody uses stays, whatever its age.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.files.terminal import as_command
from tasks.params.asked import Budget, seconds
from tasks.params.errors import ParamsError, refusal
from tasks.results.cleaning import clean

__all__ = ["main"]


def main() -> None:
    """List what is older than that, or remove it; exit with 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m flows.clean", description=__doc__)
    parser.add_argument("--older", default="30d", help="such as 2h or 30d, which is the default")
    parser.add_argument("--yes", action="store_true", help="remove it")
    given = parser.parse_args()
    try:
        before = time.time() - seconds(TypeAdapter(Budget).validate_python(given.older))
        sizes = clean(Path.cwd(), before, given.yes)
    except ValidationError as error:
        raise SystemExit(_refuse(f"--older: {refusal(error.errors())}")) from None
    except (ValueError, ParamsError, OSError) as error:
        raise SystemExit(_refuse(str(error))) from None
    what = "removed" if given.yes else "to remove them: --yes"
    print(f"{len(sizes)} things, {sum(sizes) / 1e6:.2f} MB; {what}")


def _refuse(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    with as_command():
        main()
