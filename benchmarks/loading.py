"""What it costs to check files as they are read: `python -m benchmarks.loading`.

Models of three sizes, whose tensors are hashed whenever they are loaded, and a data set's rows, which are
hashed once by each stage that reads them. All of it lies in the system's cache of files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from scoremodel.io.weights import content_digest, read_weights, write_weights
from tasks.files.arrays import read_rows, write_rows
from tasks.files.device import device_name

_MILLIONS = (1, 10, 100)  # of parameters
_REPEATS = 5


def seconds(act: Callable[[], object]) -> float:
    """Return the median of a call's processor seconds, which other work beside it does not lengthen."""
    times = []
    for _ in range(_REPEATS):
        began = time.process_time()
        act()
        times.append(time.process_time() - began)
    return float(np.median(times))


def _row(what: str, size: int, read: float, check: float) -> dict[str, str]:
    return {
        "file": what,
        "MB": f"{size / 1e6:.1f}",
        "read, s": f"{read:.4f}",
        "check, s": f"{check:.4f}",
        "GB/s checked": f"{size / check / 1e9:.2f}",
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for millions in _MILLIONS:
            path = folder / "model.safetensors"
            state = {f"{n}": torch.randn(millions * 1000, 100) for n in range(10)}
            write_weights(path, state, {})
            read = seconds(lambda path=path: [x.sum() for x in load_file(path).values()])
            check = seconds(lambda state=state: content_digest(state, ""))
            read_weights(path)
            rows.append(_row(f"{millions} M parameters", path.stat().st_size, read, check))
        x = np.random.default_rng(0).integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        both = {"train": (x, np.arange(50_000)), "held_out": (x, np.arange(50_000, 60_000))}
        card = {
            "sha256": write_rows(folder, both),
            "shape": [1, 28, 28],
            "count": {"train": 50_000, "held_out": 10_000},
            "class_counts": None,
        }
        read = seconds(lambda: [int(part.sum()) for part in read_rows(folder).values()])
        check = seconds(lambda: read_rows(folder, card))
        rows.append(_row("60,000 images 28×28", x.nbytes, read, check))
    print(f"*{device_name('cpu')}, 1 thread, processor seconds, median of {_REPEATS}*\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
