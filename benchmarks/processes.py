"""What the fixed tree of sums costs beside torch's DistributedDataParallel: two processes on this CPU.

Both train the same U-Net on the same batches from the same start, each process half of a batch with one
thread; DDP sums by its bucketed `all_reduce`, ours in the tree of `scoremodel.ranks`. One process with
one and with two threads is beside them. All take turns in one run.

    python -m benchmarks.processes
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from benchmarks.train import NETWORK, time_ours
from scoremodel.denoiser import Denoiser
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks, joined
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loss import denoising_loss, denoising_weight
from tasks.files.device import device_name

SHAPES = {"8": (1, 8, 8), "28": (1, 28, 28)}
NETWORKS = {
    "8": {"kind": "unet", "width": 16, "multipliers": [1, 4]},
    "28": NETWORK,
}
BATCH = 64


def model(name: str) -> Denoiser:
    """Return the untrained denoiser of a size."""
    torch.manual_seed(0)
    return Denoiser(NETWORKS[name], VP(), SHAPES[name], [0.0], 0.5, 256)


def pixels(name: str) -> Tensor:
    """Return images of a size."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1024, *SHAPES[name]), generator=draw, dtype=torch.uint8)


def ours(name: str, steps: int, parts: int, ranks: Ranks) -> list[float]:
    """Return the seconds of each step but the first two."""
    config = TrainingConfig(steps=steps + 2, batch_size=BATCH, parts=parts)
    return time_ours(model(name), pixels(name), config, ranks)


class _Loss(nn.Module):
    """The loss as a module's output, which is what DDP wraps."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        process = self.denoiser.process
        weight = denoising_weight(t, process, "edm", self.denoiser.std)
        denoise = self.denoiser.along(process, None)
        return denoising_loss(denoise, x_0, t, noise, process, weight).mean()


def theirs(name: str, steps: int, ranks: Ranks) -> list[float]:
    """Return the seconds of each of DDP's steps but the first two, Adam, clipping and average in them."""
    denoiser = model(name).train()
    averaged = [weight.detach().clone() for weight in denoiser.parameters()]
    wrapped = DistributedDataParallel(_Loss(denoiser))
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=1e-3, fused=True)
    data, size, seconds = pixels(name), BATCH // ranks.world_size, []
    draw = torch.Generator().manual_seed(ranks.rank)
    for _ in range(steps + 2):
        began = time.perf_counter()
        index = torch.randint(0, len(data), (size,), generator=draw)
        x_0 = data[index].float() / 127.5 - 1
        t = torch.rand(size, generator=draw) * 0.99 + 0.01
        noise = torch.randn(x_0.shape, generator=draw)
        optimiser.zero_grad()
        wrapped(x_0, t, noise).backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, list(denoiser.parameters()), 0.01)
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def _rank(rank: int, folder: str, name: str, steps: int, which: str, count: int) -> None:
    torch.set_num_threads(1)
    with joined(rank, count, Path(folder, "meeting")) as ranks:
        taken = theirs(name, steps, ranks) if which == "DDP" else ours(name, steps, 2, ranks)
    if ranks.first:
        Path(folder, "seconds").write_text(" ".join(map(str, taken)))


def in_processes(name: str, steps: int, which: str) -> list[float]:
    """Return the first process's seconds of each step, of two."""
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (folder, name, steps, which, 2), 2, start_method="fork")  # type: ignore[no-untyped-call]
        return [float(one) for one in Path(folder, "seconds").read_text().split()]


def alone(name: str, steps: int, threads: int, parts: int) -> list[float]:
    """Return the seconds of each step of one process, which is a fork too."""
    with tempfile.TemporaryDirectory() as folder:

        def act(_: int) -> None:
            torch.set_num_threads(threads)
            taken = ours(name, steps, parts, Ranks())
            Path(folder, "seconds").write_text(" ".join(map(str, taken)))

        start_processes(act, (), 1, start_method="fork")  # type: ignore[no-untyped-call]
        return [float(one) for one in Path(folder, "seconds").read_text().split()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    given = parser.parse_args()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    rows = []
    for name in given.sizes:
        taken: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for threads, parts in ((1, 1), (2, 1), (1, 2), (2, 2)):
                label = f"1 process, {threads} threads, {parts} parts"
                taken.setdefault(label, []).extend(alone(name, given.steps, threads, parts))
            for which in ("tree", "DDP"):
                label = f"2 processes of 1 thread, {which}"
                taken.setdefault(label, []).extend(in_processes(name, given.steps, which))
        first = median(taken["2 processes of 1 thread, DDP"])
        rows += [
            {
                "image": f"1×{name}×{name}",
                "": label,
                "ms/step": 1000 * median(s),
                "beside DDP": median(s) / first,
            }
            for label, s in taken.items()
        ]
    print(f"*{device_name('cpu')}, torch {torch.__version__}, batch {BATCH}, median of steps*\n")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
