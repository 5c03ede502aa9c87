"""Images per second of one training step, beside other libraries: `make benchmark-train`.

Everything from uint8 pixels to updated (and averaged) weights is in: ours through the pipeline's own
loop, each peer through the loop of its documentation (`benchmarks.peers`). Images 1×28×28, batches
of 64, networks of 1.7 M parameters ± 10 %, whose work per image differs and is printed (GFLOP of
a forward pass). First plain float32, then with each side's documented
speed-ups. All take turns in one process; the medians are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from statistics import median

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import PEERS, SHAPE, Peer
from scoremodel.denoiser import Denoiser
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from tasks.files.device import device_name

_ALONE = Ranks()
NETWORK = {"kind": "unet", "width": 32, "multipliers": [1, 2, 2, 4]}


class _Clock:
    """Notes when each step of a training ends."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def begin(self, step: int) -> None:
        pass

    def point(self, point: Mapping[str, float]) -> None:
        pass

    def asks(self) -> bool:
        return True

    def step(self, step: int, averaged: Denoiser) -> None:
        self.ticks.append(time.perf_counter())


def time_ours(
    denoiser: Denoiser, pixels: Tensor, config: TrainingConfig, ranks: Ranks = _ALONE
) -> list[float]:
    """Return the seconds of each step but the first two."""
    clock = _Clock()
    train(denoiser, pixels, config, 0, observer=clock, ranks=ranks)
    return [end - begin for begin, end in pairwise(clock.ticks[1:])]


def time_peer(peer: Peer, pixels: Tensor, batch_size: int, steps: int) -> list[float]:
    """Return the seconds of each step but the first two."""
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        index = torch.randint(0, len(pixels), (batch_size,))
        peer.step(pixels[index].float() / 127.5 - 1)
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def gflop(call: Callable[[Tensor], object]) -> float:
    """Return the work of `call` for each image of a batch of four, in units of 10⁹ operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(torch.rand(4, *SHAPE))
    return counter.get_total_flops() / 4e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="steps timed in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (minutes)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = given.batch_size
    pixels = torch.randint(0, 256, (4096, *SHAPE), dtype=torch.uint8)

    steps = given.steps + 2
    cases: list[tuple[str, str, int, float, Callable[[], list[float]]]] = []
    for precision, compiled in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        if compiled and not given.compile:
            continue
        torch.manual_seed(0)
        denoiser = Denoiser(NETWORK, VP(), SHAPE, [0.0], 0.5, 256)
        config = TrainingConfig(steps, size, precision=precision, compile=compiled)  # type: ignore[arg-type]
        cases.append(
            (
                "scoremodel",
                precision + ", compile" * compiled,
                sum(p.numel() for p in denoiser.parameters()),
                gflop(lambda x, model=denoiser: model(x, torch.full((4,), 0.5))),  # type: ignore[misc]
                partial(time_ours, denoiser, pixels, config),
            )
        )
    for name, kind in PEERS.items():
        if importlib.util.find_spec(name.replace("-", "_")) is None:
            print(f"{name} is not installed and left out")
            continue
        for fast in (False, True):
            if fast and kind.speedups == "none documented":
                continue
            peer = kind("equal", fast)
            settings = kind.speedups if fast else "float32"
            run = partial(time_peer, peer, pixels, size, steps)
            cases.append((name, settings, peer.parameters(), gflop(peer.loss), run))

    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(given.rounds):
        for (*_, run), taken in zip(cases, seconds, strict=True):
            taken += run()
    rows = pd.DataFrame(
        [
            {
                "library": library,
                "settings": settings,
                "parameters": f"{parameters / 1e6:.2f} M",
                "GFLOP": work,
                "images/s": size / median(taken),
            }
            for (library, settings, parameters, work, _), taken in zip(cases, seconds, strict=True)
        ]
    )
    theirs = rows[rows["library"] != "scoremodel"]
    for column, fastest in (
        ("× fastest float32 peer", theirs[theirs["settings"] == "float32"]["images/s"].max()),
        ("× fastest peer", theirs["images/s"].max()),
    ):
        rows[column] = rows["images/s"] / fastest
    print(
        f"*{device_name('cpu')}, {given.threads} threads, torch {torch.__version__}, "
        f"1×28×28, batch {size}, median of {given.rounds} × {given.steps} steps*\n"
    )
    print(rows.to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
