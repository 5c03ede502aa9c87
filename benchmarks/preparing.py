"""Preparing more images than there is memory for: `python -m benchmarks.preparing`.

Images of noise are written as stored PNG, in a folder and in a zip, and the stage `prepare` makes a data
set of them in a process of its own, whose memory is limited (`RLIMIT_DATA`: what is no file's). Its peak
is what the process held at most, files' pages among it, which the system takes back when it has need of
them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tasks.files.machine import cpu_name

_SOURCE = 'kind: archive\npath: "images.zip"\n'


def generate(raw: Path, count: int, side: int, form: str) -> None:
    """Write a data set's folder.

    Args:
        raw: the folder.
        count: number of images.
        side: their height and width.
        form: "folder", or "zip" of which a `source.yaml` tells.
    """
    draw = np.random.default_rng(0)
    raw.mkdir(parents=True)
    if form == "zip":
        (raw / "source.yaml").write_text(_SOURCE)
    with zipfile.ZipFile(raw / "images.zip" if form == "zip" else io.BytesIO(), "w") as archive:
        for number in range(count):
            pixels = np.frombuffer(draw.bytes(3 * side * side), np.uint8).reshape(side, side, 3)
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG", compress_level=0)
            if form == "zip":
                archive.writestr(f"{number:08}.png", png.getvalue())
            else:
                (raw / f"{number:08}.png").write_bytes(png.getvalue())


def _prepare(name: str, limit: int) -> None:
    """Be the stage, under a limit, and print its peak memory in MB and its seconds."""
    from tasks.files.layout import Configuration
    from tasks.prepare import main as prepare

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    began = time.perf_counter()
    prepare(Configuration(name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([peak * 1024 / 1e6, time.perf_counter() - began]))


def _row(gigabytes: float, side: int, form: str, limit: int) -> dict[str, str]:
    count = round(gigabytes * 1e9 / (3 * side * side))
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder, "data/raw/noise"), count, side, form)
        told = Path(folder, "artifacts/resolved/datasets/noise.json")
        told.parent.mkdir(parents=True)
        told.write_text(json.dumps({"gives": "images", "held_out": 0.1, "seed": 0}))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.preparing",
                "--child",
                "noise",
                "--limit",
                f"{limit}",
            ],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return {
        "source": form,
        "images": f"{count:,}",
        "pixels, GB": f"{count * 3 * side * side / 1e9:.2f}",
        "peak memory, GB": f"{peak / 1e3:.2f}",
        "seconds": f"{seconds:.0f}",
        "images/s": f"{count / seconds:,.0f}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 1.0], help="of pixels")
    parser.add_argument("--side", type=int, default=64, help="height and width of an image")
    parser.add_argument("--limit", type=int, default=10**9, help="bytes of RLIMIT_DATA")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _prepare(given.child, given.limit)
        return
    rows = [
        _row(size, given.side, form, given.limit)
        for form in ("folder", "zip")
        for size in given.gigabytes
    ]
    print(f"*{cpu_name()}, 1 process, memory limited to {given.limit / 1e9:g} GB*\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
