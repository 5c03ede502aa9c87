"""The Fréchet distance's own time beside clean-fid's: `python -m benchmarks.frechet`.

Features of 2048 dimensions, as Inception's: more samples than dimensions, and fewer. One thread each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.distance import frechet_distance, moments
from tasks.files.device import device_name


def timed(distance: Callable[[], float]) -> tuple[float, float]:
    """Return the value and the seconds of one call."""
    began = time.perf_counter()
    value = float(distance())
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
        a, b = (
            moments(draw.standard_normal((count, given.width)) @ mixing + shift)
            for shift in (0, 0.05)
        )
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, their_seconds = timed(
                partial(fid.frechet_distance, a.mean, a.covariance, b.mean, b.covariance)
            )
            ours, our_seconds = timed(partial(frechet_distance, a, b))
        rows.append(
            {
                "samples": count,
                "clean-fid, s": f"{their_seconds:.2f}",
                "scoremodel, s": f"{our_seconds:.2f}",
                "ratio": f"{their_seconds / our_seconds:.1f}",
                "relative difference": f"{abs(ours - theirs) / theirs:.1e}",
            }
        )
    print(f"*{device_name('cpu')}, 1 thread, {given.width} features, moments given*\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
