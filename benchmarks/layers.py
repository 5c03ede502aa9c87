"""Where a training step's time goes, layer by layer: `python -m benchmarks.layers`.

Each convolution and linear layer of a model's network is run by itself, forward and back, on the input
that it has in a training step, on one thread; beside it stands its share of the rate at which this
machine multiplies large matrices in the same precision. What of the whole step is left over is named
last: normalisation, activations, additions, the loss, the optimiser and the averages. Processor
seconds, the least of the repetitions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from scoremodel.denoiser import as_channels_last
from scoremodel.processes.base import process_from_config
from scoremodel.training.loop import train
from tasks.files.device import device_name
from tasks.params.load import load_params
from tasks.params.resolve import network_of
from tasks.train import build_denoiser, training_config

_SIDE = 2048  # of the matrices whose product is the machine's rate


def least(work: Callable[[], object], repetitions: int) -> float:
    """Return the least processor seconds of some repetitions, after one that warms up."""
    found = math.inf
    for repetition in range(repetitions + 1):
        began = time.process_time()
        work()
        if repetition:
            found = min(found, time.process_time() - began)
    return found


def matrix_rate(precision: torch.dtype, repetitions: int) -> float:
    """Return how many floating-point operations a second a large matrix product has."""
    a = torch.randn(_SIDE, _SIDE).to(precision)
    return 2 * _SIDE**3 / least(lambda: a @ a, repetitions)


def inputs_of(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what each convolution and linear layer takes in a call of the network, by its name."""
    found: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: found.__setitem__(name, given[0].detach())
        )
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(x, torch.zeros(len(x)))
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ve", help="of params.yaml")
    parser.add_argument("--shape", type=int, nargs=3, default=[1, 8, 8])
    parser.add_argument("--repetitions", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model: dict[str, Any] = load_params().model_dump(exclude_unset=True)["models"][given.model]
    kind = network_of("images", model["network"])
    model["network"] = {kind: model["network"][kind]}
    card = {"shape": given.shape, "mean": [0.0] * given.shape[0], "std": 0.5, "levels": 256}
    card["class_counts"] = None
    denoiser = build_denoiser(model, card, process_from_config(model["sde"]), 0)
    as_channels_last(denoiser)
    bfloat16 = model["training"]["precision"] == "bfloat16"
    precision = torch.bfloat16 if bfloat16 else torch.float32
    rate = matrix_rate(precision, given.repetitions)
    size = model["training"]["batch_size"]
    x = torch.randn(size, *given.shape).contiguous(memory_format=torch.channels_last)
    layers = dict(denoiser.network.named_modules())
    rows: dict[str, list[float]] = {}
    for name, taken in inputs_of(denoiser.network, x).items():
        layer = layers[name]
        taken.requires_grad_()

        def step(layer: nn.Module = layer, taken: Tensor = taken) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                out = layer(taken)
            torch.autograd.grad(out, [taken, *layer.parameters()], torch.ones_like(out))

        with torch.no_grad():
            products = layer(taken).numel() * layer.get_parameter("weight")[0].numel()
        shape = "×".join(map(str, layer.get_parameter("weight").shape))
        sides = "×".join(map(str, taken.shape[2:])) or "-"
        row = rows.setdefault(f"{type(layer).__name__} {shape} at {sides}", [0, 0, 0])
        row[0] += 1
        row[1] += 6 * products
        row[2] += least(step, given.repetitions)
    steps = 4 * given.repetitions
    config = training_config(model["training"] | {"steps": steps})
    pixels = torch.randint(256, (size, *given.shape), dtype=torch.uint8)
    whole = least(lambda: train(denoiser, pixels, config, 0), 2) / steps
    table = pd.DataFrame(
        [
            {
                "layer": name,
                "number": str(int(count)),
                "ms": 1e3 * seconds,
                "% of the step": 100 * seconds / whole,
                "% of the matrix rate": 100 * work / seconds / rate,
            }
            for name, (count, work, seconds) in rows.items()
        ]
    ).sort_values("ms", ascending=False)
    total = [sum(row[n] for row in rows.values()) for n in (1, 2)]
    rest = whole - total[1]
    table.loc[len(table)] = ["everything else", "", 1e3 * rest, 100 * rest / whole, math.nan]
    table.loc[len(table)] = ["the step", "", 1e3 * whole, 100.0, 100 * total[0] / whole / rate]
    print(
        f"*{device_name('cpu')}, one thread, torch {torch.__version__}, {given.model}, batch {size}, "
        f"{precision}, {rate / 1e9:.0f} GFLOP/s for matrices of {_SIDE}*\n"
    )
    print(table.to_markdown(index=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()
