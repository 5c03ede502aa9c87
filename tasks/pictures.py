"""Stage pictures: what other stages left to be seen → pictures."""

from __future__ import annotations

from tasks.files.arrays import read_arrays
from tasks.files.layout import PICTURES, SHOWN, Configuration
from tasks.files.leftovers import put_away_leftovers
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.report.pictures.base import draw, write
from tasks.results.active import active_pairs

__all__ = ["main"]


def main(_: Configuration) -> None:
    """Draw every file of arrays that an active stage left, and each pair of models."""
    put_away_leftovers()
    PICTURES.mkdir(parents=True, exist_ok=True)
    made = [draw(path, PICTURES / path.stem) for path in sorted(SHOWN.glob("[!.]*.npz"))]
    for name, first, second in active_pairs(resolved("active")):
        sides = [read_arrays(one.shown, ("data", "levels")) for one in (first, second)]
        arrays = {side: sides[n][0]["data"] for n, side in enumerate(("first", "second"))}
        info = {"levels": sides[0][1]["levels"], "models": [first.model, second.model]}
        made.append(write(arrays, {"picture": "pairs", **info}, PICTURES / name))
    print(f"pictures: {sum(one is not None for one in made)} in {PICTURES}")


if __name__ == "__main__":
    run_stage(main)
