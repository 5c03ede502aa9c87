"""Stage pictures: what other stages left to be seen → pictures."""

from __future__ import annotations

from tasks.files.layout import PICTURES, SHOWN, Configuration
from tasks.files.stage import run_stage
from tasks.report.pictures.base import draw

__all__ = ["main"]


def main(_: Configuration) -> None:
    """Draw every file of arrays that is there; `check` has put away those of what is not active."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    made = [draw(path, PICTURES / path.stem) for path in sorted(SHOWN.glob("[!.]*.npz"))]
    print(f"pictures: {sum(one is not None for one in made)} in {PICTURES}")


if __name__ == "__main__":
    run_stage(main)
