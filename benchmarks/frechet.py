"""The Fréchet distance's own time beside clean-fid's: `python -m benchmarks.frechet`.

Features of 2048 dimensions, as Inception's: more samples than dimensions, and fewer. One thread each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.distance import frechet_distance
from tasks.device import device_name


def timed(
    distance: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    sides: list[NDArray[np.float64]],
) -> tuple[float, float]:
    """Return the value and the seconds of one call."""
    began = time.perf_counter()
    value = float(distance(*sides))
    return value, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    from cleanfid import fid

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--width", type=int, default=2048)
    given = parser.parse_args()
    draw = np.random.default_rng(0)
    mixing = draw.standard_normal((given.width, given.width)) / np.sqrt(given.width)
    rows = []
    for count in (5 * given.width, given.width // 2):
        sides = [draw.standard_normal((count, given.width)) @ mixing + shift for shift in (0, 0.05)]
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, their_seconds = timed(fid.fid_from_feats, sides)
            ours, our_seconds = timed(frechet_distance, sides)
        rows.append(
            {
                "samples": count,
                "clean-fid s": their_seconds,
                "scoremodel s": our_seconds,
                "ratio": their_seconds / our_seconds,
                "relative difference": f"{abs(ours - theirs) / theirs:.1e}",
            }
        )
    print(f"*{device_name('cpu')}, 1 thread, {given.width} features*\n")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
