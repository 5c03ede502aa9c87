"""What the noise of samples costs: `python -m benchmarks.noise`.

Beside it stands what came before: a generator of torch's own for each sample, on the CPU, the noise of
up to 16 steps ahead at once. First the noise alone, as a sampler of the ODE has it (one draw is taken)
and one of the SDE (a draw a step, 18 here); then its share of a whole sampling call of the SDE with a
U-Net. Sides take turns in one process. It is the least of the repetitions, on one thread in seconds of
the processor, which other work on the machine lengthens least, on several by the clock.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import pandas as pd
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.processes.vp import VP
from scoremodel.rng import generator
from scoremodel.samplers import sampling
from scoremodel.samplers.multistep import SDEDPMSolver

SHAPES = (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)
BATCHES = 1, 16, 128, 500
DRAWS = {"ODE": 1, "SDE": 18}
STEPS = 6
CALLS = (
    ((1, 8, 8), {"kind": "unet", "width": 16, "multipliers": [1, 4]}, 128),
    ((1, 28, 28), {"kind": "unet", "width": 32, "multipliers": [1, 2, 2, 4]}, 32),
    ((3, 32, 32), {"kind": "unet", "width": 32, "multipliers": [1, 2, 2, 4]}, 32),
)
"""Shape, the network as `params.yaml` has it (digits', Fashion-MNIST's) and samples drawn together."""


def of_generators(
    seed: int, numbers: range, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor]:
    """Yield noise, each sample's from a generator of its own."""
    streams = [generator(seed, "sample", number) for number in numbers]
    ahead = max(1, min(16, 16384 // math.prod(shape)))
    while True:
        rows = torch.empty((len(streams), ahead, *shape))
        for row, stream in zip(rows, streams, strict=True):
            torch.randn(row.shape, generator=stream, out=row)
        yield from rows.to(device, dtype).transpose(0, 1).contiguous().unbind()


def by_turns(sides: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
    """Return each side's least seconds."""
    least = [math.inf] * len(sides)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repetitions + 1):  # the first warms up
        for index, side in enumerate(sides):
            began = clock()
            side()
            least[index] = min(least[index], clock() - began)
    return least


def take(
    of: Callable[..., Iterator[Tensor]],
    batch: int,
    shape: Sequence[int],
    draws: int,
    device: torch.device | str = "cpu",
) -> None:
    """Take so many draws of a batch's noise."""
    noise = of(0, range(batch), shape, torch.float32, torch.device(device))
    for _ in islice(noise, draws):
        pass


def alone(repetitions: int) -> pd.DataFrame:
    """Return microseconds of noise for each sample, and for each step of the SDE."""
    draw, rows = sampling._draw, []
    for shape in SHAPES:
        for batch in BATCHES:
            row: list[object] = ["×".join(map(str, shape)), batch]
            for draws in DRAWS.values():
                sides = [partial(take, of, batch, shape, draws) for of in (draw, of_generators)]
                ours, before = by_turns(sides, repetitions)
                scale = 1e6 / (batch * draws)
                row += [scale * before, scale * ours, ours / before]
            rows.append(row)
    columns = [f"{name} {what}" for name in DRAWS for what in ("before, µs", "now, µs", "ratio")]
    return pd.DataFrame(rows, columns=["sample", "batch", *columns])


def calls(repetitions: int) -> pd.DataFrame:
    """Return milliseconds of a whole sampling call, and the noise's share of it on either side."""
    rows = []
    for shape, network, batch in CALLS:
        model = Denoiser(network, VP(), shape, [0.0] * shape[0], 0.5).eval()
        whole = partial(sampling.sample, model, SDEDPMSolver(STEPS), batch, 0, batch_size=batch)
        (call,) = by_turns([whole], repetitions)
        noise = [partial(take, of, batch, shape, STEPS) for of in (of_generators, sampling._draw)]
        before, now = by_turns(noise, 5 * repetitions)
        rest = call - now
        shares = [100 * one / (rest + one) for one in (before, now)]
        longer = (rest + now) / (rest + before)
        rows.append(["×".join(map(str, shape)), batch, 1e3 * call, *shares, longer])
    columns = ["sample", "batch", "call, ms", "noise before, %", "noise now, %", "ratio"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from tasks.files.device import device_name

    print(f"{device_name('cpu')}, {arguments.threads} threads, torch {torch.__version__}\n")
    torch.manual_seed(0)
    for table in (alone(arguments.repetitions), calls(arguments.repetitions)):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
        print()


if __name__ == "__main__":
    main()
