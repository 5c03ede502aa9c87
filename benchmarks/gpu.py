"""What a GPU does: checks first, then what it takes: `python -m benchmarks.gpu`, on a machine with one.

Each section is a function of its sizes and prints a table of `docs/benchmarks.md`. A check that fails, or
a section that breaks, is said and makes the exit status 1; what cannot be measured here says why in one
line. `--tiny --device cpu` is the rehearsal, which the tests run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.noise import take
from scoremodel.data.scale import quantise
from scoremodel.denoiser import Denoiser, as_channels_last
from scoremodel.evaluation.distance import frechet_distance, real_floor
from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.evaluation.extractors.shipped import shipped_file
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.networks.base import build_network
from scoremodel.precision import Precision
from scoremodel.processes.base import process_from_config
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks, joined
from scoremodel.rng import random_normal, random_uniform
from scoremodel.samplers import sampling
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.multistep import SDEDPMSolver
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import Trained, train
from scoremodel.training.loss import denoising_loss, denoising_weight
from tasks.files.arrays import read_card, read_rows
from tasks.files.device import Machine, device_name, devices, set_up_device
from tasks.files.layout import Configuration
from tasks.params.presets import laid_over
from tasks.prepare import card_of, read_source, split
from tasks.sample import build_sampler
from tasks.train import build_denoiser, training_config

__all__ = ["SECTIONS", "SIZES", "TINY", "Found", "main"]

Network = Mapping[str, Any]

OF_36_M = {"kind": "unet", "width": 128, "multipliers": [1, 2, 2], "blocks": 4}
OF_36_M |= {"attention_levels": [1]}
OF_60_M = {"kind": "unet", "width": 128, "multipliers": [1, 2, 2, 2], "blocks": 5}
OF_60_M |= {"attention_levels": [1]}
OF_28_PIXELS = {"kind": "unet", "width": 32, "multipliers": [1, 2, 2, 4], "attention_levels": [2]}
OF_8_PIXELS = {"kind": "unet", "width": 8, "multipliers": [1, 2], "attention_levels": [1]}
_WARM = 3
"""So many steps come before those that are timed."""
_MORE = 100.0
"""By so much may a device's rounding exceed the CPU's own, before it counts as another computation."""


@dataclass
class Found:
    """What a section has found.

    Args:
        rows: of its table.
        broken: the checks that failed, in words.
        missing: what could not be measured here, and why.
    """

    rows: list[dict[str, object]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def check(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong if a check does not hold."""
        if not holds:
            self.broken.append(otherwise)


@dataclass(frozen=True)
class Mode:
    """How a device computes.

    Args:
        name: what the tables call it.
        precision: of the network.
        tf32: as in `params.yaml`.
        deterministic: as in `params.yaml`.
    """

    name: str
    precision: Precision = "float32"
    tf32: bool = False
    deterministic: bool = True

    def set_up(self, device: torch.device) -> None:
        """Make the device compute so, as the pipeline's stages do."""
        machine = Machine(torch.get_num_threads(), str(device), self.tf32, self.deterministic)
        with redirect_stdout(sys.stderr):
            set_up_device(machine)


FLOAT32, TF32 = Mode("float32"), Mode("TF32", tf32=True)
BFLOAT16 = Mode("bfloat16", "bfloat16")
FASTEST = Mode("bfloat16, fastest algorithms", "bfloat16", deterministic=False)


def now(device: torch.device) -> float:
    """Return the clock's seconds once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def model(network: Network, shape: Sequence[int], device: torch.device) -> Denoiser:
    """Return an untrained denoiser, the same on every device, in which no layer's weights are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(network, VP(), shape, [0.0] * shape[0], 0.5, 256)
        for weight in denoiser.parameters():
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return as_channels_last(denoiser.to(device))


def pixels(shape: Sequence[int]) -> Tensor:
    """Return images of noise, on the CPU."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4096, *shape), generator=draw, dtype=torch.uint8)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of some tensors' numbers."""
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def apart(found: Tensor, exact: Tensor) -> float:
    """Return |found − exact| / |exact|."""
    found, exact = found.detach().cpu().double(), exact.detach().cpu().double()
    return float((found - exact).norm() / exact.norm())


def flop(network: Network, shape: Sequence[int], training: bool) -> int:
    """Return the operations of a network's call for one image, of its derivatives too in training.

    A multiplication and an addition are two; counted by `torch.utils.flop_counter` from the shapes alone,
    which leaves out what is no product of matrices.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        out = build_network(network, tuple(shape), None)(torch.empty(1, *shape), torch.empty(1))
        if training:
            out.sum().backward()
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, precision: Precision, size: int, repetitions: int) -> float:
    """Return the operations a second of a product of two large square matrices, the best one's."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repetitions + 1):  # the first warms up
        began = now(device)
        torch.mm(a, b)
        seconds.append(now(device) - began)
    return 2 * size**3 / min(seconds[1:])


class _Clock:
    """Waits for the device after some steps of a training, and notes the time."""

    def __init__(self, device: torch.device, at: Container[int]) -> None:
        self.device, self.at = device, at
        self.ticks = [now(device)]

    def begin(self, step: int) -> None:
        pass

    def point(self, point: Mapping[str, float]) -> None:
        pass

    def asks(self) -> bool:
        return True

    def step(self, step: int, averaged: Denoiser) -> None:
        if step in self.at:
            self.ticks.append(now(self.device))


def timed(
    denoiser: Denoiser, config: TrainingConfig, ranks: Ranks | None = None
) -> tuple[float, float, Trained]:
    """Return the seconds until the first step is done, those of a later step, and what was trained."""
    clock = _Clock(denoiser.data_mean.device, (1, _WARM, config.steps))
    data = pixels(denoiser.shape)
    trained = train(denoiser, data, config, 0, observer=clock, ranks=ranks or Ranks())
    began, first, warm, end = clock.ticks
    return first - began, (end - warm) / (config.steps - _WARM), trained


def steps_of(count: int, batch_size: int, precision: Precision, **more: Any) -> TrainingConfig:
    """Return the configuration of a training with so many steps to be timed."""
    steps = count + _WARM
    return TrainingConfig(steps, batch_size, precision=precision, log_every=steps, **more)


def _one_step(denoiser: Denoiser, batch: int) -> tuple[Tensor, Tensor]:
    """Return loss and gradient of a batch that is the same on every device."""
    mean, numbers = denoiser.data_mean, range(batch)
    shape, device = denoiser.shape, mean.device
    x_0 = 2 * random_uniform(0, "images", numbers, shape, device=device).to(mean.dtype) - 1
    t = random_uniform(0, "times", numbers, (1,), device=device)[:, 0].to(mean.dtype)
    t = 0.01 + 0.98 * t
    noise = random_normal(0, "noise", numbers, shape, dtype=mean.dtype, device=device)[0]
    weight = denoising_weight(t, denoiser.process, "edm", denoiser.std)
    denoise = denoiser.along(denoiser.process, None)
    loss = denoising_loss(denoise, x_0, t, noise, denoiser.process, weight).mean()
    weights = [one for one in denoiser.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(loss, weights)
    return loss, torch.cat([one.flatten() for one in gradients])


def against_cpu(
    found: Found,
    device: torch.device,
    network: Network,
    shape: Sequence[int],
    batch: int,
    calls: int,
    steps: int,
) -> None:
    """Compare float32 with the CPU's: noise, one training step, samples; and a training with itself."""
    cpu, numbers = torch.device("cpu"), range(batch)

    def noise(where: torch.device) -> str:
        return digest({"": random_normal(0, "sample", numbers, shape, device=where)})

    def computed(denoiser: Denoiser) -> tuple[Tensor, Tensor, Tensor]:
        drawn = sampling.sample(denoiser.eval(), Heun((calls + 1) // 2), batch, 0, batch_size=batch)
        return *_one_step(denoiser.train(), batch), drawn.x

    found.check(noise(device) == noise(cpu), "the noise has other bits than on the CPU")
    FLOAT32.set_up(device)
    exact = computed(model(network, shape, cpu).double())
    of_cpu = computed(model(network, shape, cpu))
    rounding: list[float] = []
    for name, mode in (("CPU beside float64", None), ("float32", FLOAT32), ("TF32", TF32)):
        if mode is None:
            ours, theirs = of_cpu, exact
        else:
            mode.set_up(device)
            ours, theirs = computed(model(network, shape, device)), of_cpu
        norms = [side[1].double().norm() for side in (ours, theirs)]
        values = [apart(*norms), *(apart(a, b) for a, b in zip(ours, theirs, strict=True))]
        norm, loss, gradient, x = values
        found.rows.append(
            {"": name, "loss": loss, "gradient norm": norm, "gradient": gradient, "samples": x}
        )
        rounding = rounding or [loss, gradient, x]
        if mode is FLOAT32:
            for what, own, value in zip(
                ("loss", "gradient", "samples"), rounding, (loss, gradient, x), strict=True
            ):
                # A loss is one number, which may be right by chance.
                least = _MORE * max(own, torch.finfo(torch.float32).eps)
                found.check(
                    value <= least, f"{what} in float32: {value:.2g} off the CPU's, > {least:.2g}"
                )
    for mode in (FLOAT32, TF32, BFLOAT16):
        mode.set_up(device)
        config = TrainingConfig(steps, batch, precision=mode.precision, log_every=steps)
        twice = {
            digest(
                train(model(network, shape, device), pixels(shape), config, 0).denoiser.state_dict()
            )
            for _ in range(2)
        }
        found.check(len(twice) == 1, f"two trainings in {mode.name} differ")
        name = f"two trainings of {steps} steps in {mode.name}"
        found.rows.append({"": name, "bits": "equal" if len(twice) == 1 else "DIFFER"})


def bfloat16(
    found: Found,
    device: torch.device,
    networks: Mapping[str, Network],
    shape: Sequence[int],
    batch: int,
    steps: int,
) -> None:
    """Compare samples in bfloat16 with float32's on this device, and a training step's time."""
    for name, network in networks.items():
        drawn, seconds = {}, {}
        for mode in (FLOAT32, BFLOAT16):
            mode.set_up(device)
            denoiser = model(network, shape, device).eval()
            drawn[mode] = sampling.sample(
                denoiser, Heun(18), batch, 0, batch_size=batch, precision=mode.precision
            ).x
            config = steps_of(steps, batch, mode.precision)
            _, seconds[mode], _ = timed(model(network, shape, device), config)
        found.check(bool(drawn[BFLOAT16].isfinite().all()), f"{name}: samples are not finite")
        found.rows.append(
            {
                "network": name,
                "samples apart": apart(drawn[BFLOAT16], drawn[FLOAT32]),
                "largest": float((drawn[BFLOAT16] - drawn[FLOAT32]).abs().max()),
                "float32, ms/step": 1e3 * seconds[FLOAT32],
                "bfloat16, ms/step": 1e3 * seconds[BFLOAT16],
                "times faster": seconds[FLOAT32] / seconds[BFLOAT16],
            }
        )


def compiled(
    found: Found,
    device: torch.device,
    networks: Mapping[str, Network],
    shape: Sequence[int],
    batch: int,
    steps: int,
    precision: Precision,
) -> None:
    """Time torch.compile: what comes before the first step, and a step after; nothing from its caches."""
    BFLOAT16.set_up(device)
    for name, network in networks.items():
        losses = []
        for chosen in (False, True):
            config = steps_of(steps, batch, precision, compile=chosen)
            torch.compiler.reset()
            cold = torch._inductor.config.patch(force_disable_caches=True)
            with cold if chosen else nullcontext():
                first, step, trained = timed(model(network, shape, device), config)
            losses.append(trained.curves[-1]["loss"])
            found.rows.append(
                {
                    "network": name,
                    "compile": "yes" if chosen else "no",
                    "first step, s": first,
                    "ms/step": 1e3 * step,
                    "loss apart": abs(losses[-1] / losses[0] - 1),
                }
            )
        wrong = abs(losses[1] / losses[0] - 1)
        found.check(wrong < 0.03, f"{name}: compiled, the loss is {wrong:.2g} apart")


def training(
    found: Found,
    device: torch.device,
    networks: Mapping[str, Network],
    shape: Sequence[int],
    batch: int,
    steps: int,
    matrix: int,
    modes: Sequence[Mode],
) -> None:
    """Time the training of images, and say what share of the rate of a large product of matrices it has."""
    for mode in modes:
        mode.set_up(device)
        rate = matrix_rate(device, mode.precision, matrix, 10)
        for name, network in networks.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            denoiser = model(network, shape, device)
            _, step, _ = timed(denoiser, steps_of(steps, batch, mode.precision))
            work = flop(network, shape, training=True)
            row: dict[str, object] = {
                "network": name,
                "parameters": f"{sum(p.numel() for p in denoiser.parameters()) / 1e6:.2f} M",
                "GFLOP of an image": work / 1e9,
                "computes in": mode.name,
                "images/s": batch / step,
                "TFLOP/s": work * batch / step / 1e12,
                "of matrices": rate / 1e12,
                "share, %": 100 * work * batch / step / rate,
            }
            if device.type == "cuda":
                row["GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
            found.rows.append(row)


def _draws(sampler: Sampler) -> int:
    """Return how many draws of noise a sampler takes."""
    taken: list[int] = []

    def noise(k: int, samples: range) -> Tensor:
        taken.append(k)
        return torch.zeros(len(samples), 1)

    sampling.sample(lambda x, _: x, sampler, 1, 0, process=VP(), shape=(1,), noise=noise)
    return len(taken)


def sampled(
    found: Found,
    device: torch.device,
    network: Network,
    shape: Sequence[int],
    batches: Sequence[int],
    samplers: Sequence[Sampler],
    matrix: int,
    modes: Sequence[Mode],
) -> None:
    """Time sampling, the noise in it, and say what share of the rate of a large product it has."""
    work = flop(network, shape, training=False)
    for mode in modes:
        mode.set_up(device)
        rate = matrix_rate(device, mode.precision, matrix, 10)
        denoiser = model(network, shape, device).eval()
        for sampler, batch in product(samplers, batches):
            options: dict[str, Any] = {"batch_size": batch, "precision": mode.precision}
            whole = partial(sampling.sample, denoiser, sampler, batch, 0, **options)
            noise = partial(take, sampling._draw, batch, shape, _draws(sampler), device)
            nfe, seconds = whole().nfe, []  # which warms up
            noise()
            for act in (whole, noise):
                began = now(device)
                act()
                seconds.append(now(device) - began)
            found.check(nfe == NFE, f"{sampler.kind}: {nfe} network calls, not {NFE}")
            found.rows.append(
                {
                    "sampler": sampler.kind,
                    "computes in": mode.name,
                    "batch": batch,
                    "samples/s": batch / seconds[0],
                    "noise, %": 100 * seconds[1] / seconds[0],
                    "share of matrices, %": 100 * work * nfe * batch / seconds[0] / rate,
                }
            )


def _rank(
    rank: int,
    world_size: int,
    folder: Path,
    device: str,
    network: Network,
    shape: Sequence[int],
    config: TrainingConfig,
) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    FLOAT32.set_up(torch.device(device))
    with joined(rank, world_size, folder / "meeting") as ranks:
        _, step, trained = timed(model(network, shape, torch.device(device)), config, ranks)
    if ranks.first:
        said = {"seconds": step, "sha256": digest(trained.denoiser.state_dict())}
        (folder / "found.json").write_text(json.dumps(said))


def processes(
    found: Found,
    device: torch.device,
    network: Network,
    shape: Sequence[int],
    batch: int,
    parts: int,
    steps: int,
    most: int | None = None,
) -> None:
    """Train the same parts in one process and in several, of one thread each: the bytes are the same."""
    hashes = []
    if most is None:
        most = torch.cuda.device_count() if device.type == "cuda" else 2
    if most < 2:
        found.missing.append(f"{most} GPU is on this machine, several processes need several")
    config = steps_of(steps, batch, "float32", parts=parts)
    for world_size in (2**n for n in range(parts.bit_length()) if 2**n <= most):
        with tempfile.TemporaryDirectory() as folder:
            given = (world_size, Path(folder), device.type, network, shape, config)
            method = "spawn" if device.type == "cuda" else "fork"  # CUDA does not survive a fork
            start_processes(_rank, given, world_size, start_method=method)  # type: ignore[no-untyped-call]
            said = json.loads(Path(folder, "found.json").read_text())
        hashes.append(said["sha256"])
        found.rows.append(
            {
                "processes × parts": f"{world_size} × {parts // world_size}",
                "ms/step": 1e3 * said["seconds"],
                "sha256 of the weights": said["sha256"][:16],
            }
        )
    found.check(len(set(hashes)) == 1, "the bytes depend on the number of processes")


def _data(dataset: str, held_out: float | str | None) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return the pipeline's arrays of a data set and their card, or those of its source split so."""
    files = Configuration(dataset)
    if held_out is None or files.card.exists():
        card = read_card(files.card)
        return read_rows(files.arrays, card), card
    raw = read_source(files.raw)
    rows = split(raw, held_out, None, dataset, 0)
    arrays = {name: raw.x[own] for name, own in zip(("train", "held_out"), rows, strict=True)}
    if raw.labels is not None:
        arrays["train_labels"] = raw.labels[rows[0]]
    return arrays, card_of(dataset, raw, *rows, digest="")


def reached(
    found: Found,
    device: torch.device,
    preset: str,
    minutes: float,
    tried: int,
    dataset: str | None = None,
    held_out: float | str | None = None,
    count: int | None = None,
) -> None:
    """Train a preset's models for some minutes in all, and judge their samples beside real images.

    The number of steps, on which the learning rate depends, follows from the time of the first few. The
    data are those that the pipeline has prepared, or split here where `held_out` says how.
    """
    params = laid_over(preset).model_dump(exclude_unset=True)
    FLOAT32.set_up(device)
    dataset = dataset or params["active"]["datasets"][0]
    try:
        arrays, card = _data(dataset, held_out)
    except FileNotFoundError as error:
        path = error.filename or error
        found.missing.append(f"{path} is not there, `dvc repro prepare@{dataset}` makes it")
        return
    judge = load_extractor(shipped_file(dataset, 0), device)
    count = count or params["evaluation"]["count"]
    images = {side: torch.from_numpy(np.array(arrays[side])) for side in ("train", "held_out")}
    real = {side: judge.features(data).numpy() for side, data in images.items()}
    fresh = ~judge.has_seen(images["train"].numpy())
    labels = arrays.get("train_labels")
    labels = None if labels is None else labels[fresh]
    floor = real_floor(real["train"][fresh], real["held_out"], count, 0, 20, labels).value
    names = params["active"]["models"]
    for name in names:
        block = params["models"][name]
        block["network"] = {"unet": block["network"]["unet"]}
        process = process_from_config(block["sde"])

        def run(steps: int, block: Any = block, process: Any = process) -> tuple[Denoiser, float]:
            began = now(device)
            config = training_config(block["training"] | {"steps": steps})
            denoiser = build_denoiser(block, card, process, 0).to(device)
            trained = train(denoiser, images["train"], config, 0).denoiser
            return trained, now(device) - began

        run(_WARM)
        _, spent = run(tried)
        steps = max(tried, int(0.97 * (60 * minutes / len(names) - spent) / (spent / tried)))
        denoiser, seconds = run(steps)
        for chosen in params["active"]["samplers"]:
            sampler = build_sampler(params["samplers"][chosen])
            precision = params["samplers"][chosen]["precision"]
            drawn = sampling.sample(
                denoiser, sampler, count, 0, batch_size=500, precision=precision
            )
            features = judge.features(quantise(drawn.x, card["levels"]).cpu()).numpy()
            distance = frechet_distance(features, real["held_out"])
            found.check(bool(drawn.x.isfinite().all()), f"{name}: samples are not finite")
            found.rows.append(
                {
                    "data": dataset,
                    "model": name,
                    "minutes": seconds / 60,
                    "steps": steps,
                    "images/s": steps * block["training"]["batch_size"] / seconds,
                    "sampler": chosen,
                    "NFE": drawn.nfe,
                    "N": count,
                    "distance to held-out": distance,
                    "× floor": distance / floor,
                }
            )


class _Timed(Checkpoints):
    """Checkpoints that note when each one began, how long it held the training, and when it was written.

    One begins so many steps after the one before was written, whatever its share of the time.
    """

    def __init__(self, folder: Path, wanted: int, between: int) -> None:
        super().__init__(folder, every_seconds=1e-9, stop=self._done)
        self.wanted, self.between, self.since = wanted, between, 0
        self.bytes = 0
        self.began: list[float] = []
        self.held: list[float] = []
        self.ended: list[float] = []

    def due(self, step: int) -> bool:
        """Return whether so many steps were taken since the last one was written."""
        self.since = self.since + 1 if len(self.began) == len(self.ended) else 0
        return self.since > self.between and len(self.began) < self.wanted

    def apart(self) -> float:
        """Return after how many seconds the next one would be due, by asking with the clock put forward."""
        low, high = 0.0, 1e9
        while high - low > 1e-4:
            middle = (low + high) / 2
            self.saved = time.monotonic() - middle
            low, high = (low, middle) if super().due(1) else (middle, high)
        return high

    def _done(self) -> bool:
        return len(self.ended) == self.wanted and self.since > self.between

    def save(
        self, step: int, tensors: dict[str, Tensor], info: dict[str, Any], wait: bool = True
    ) -> None:
        if wait:  # the one of the stop, which nobody has to see
            return
        self.bytes = sum(tensor.nbytes for tensor in tensors.values())
        self.began.append(time.perf_counter())
        super().save(step, tensors, info, wait)
        self.held.append(time.perf_counter() - self.began[-1])

    def _keep(self, name: str, tensors: dict[str, Tensor], content: Any, began: float) -> None:
        super()._keep(name, tensors, content, began)
        self.ended.append(time.perf_counter())


def checkpoints(
    found: Found,
    device: torch.device,
    network: Network,
    shape: Sequence[int],
    batch: int,
    wanted: int,
    between: int,
    folder: Path,
) -> None:
    """Train with some checkpoints: what they hold up, how much slower steps beside a write are, the share.

    The share is that of the seconds until it is written, of those until the next one is due by time, and
    may be 2 % at most. What the training loses of the same is the time that it is held, and by which steps
    are longer meanwhile.
    """
    denoiser = model(network, shape, device)
    FLOAT32.set_up(device)
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainingConfig(10**9, batch, precision="float32")
    clock = _Clock(device, range(config.steps))
    with (
        tempfile.TemporaryDirectory(dir=folder) as inside,
        _Timed(Path(inside, "state"), wanted, between) as kept,
    ):
        with suppress(Stopped):
            train(denoiser, pixels(shape), config, 0, checkpoints=kept, observer=clock)
        apart = kept.apart()
    writes = list(zip(kept.began, kept.ended, strict=True))
    beside: list[float] = []
    otherwise: list[float] = []
    # A step within which a checkpoint begins or ends is neither.
    for began, end in pairwise(clock.ticks[1:]):
        if any(begin <= began and end <= over for begin, over in writes):
            beside.append(end - began)
        elif not any(begin <= end and began <= over for begin, over in writes):
            otherwise.append(end - began)
    took, held, step = median(b - a for a, b in writes), median(kept.held), median(otherwise)
    period = kept.took + apart
    share = 100 * kept.took / period
    row: dict[str, object] = {
        "parameters": f"{sum(p.numel() for p in denoiser.parameters()) / 1e6:.2f} M",
        "MB": kept.bytes / 1e6,
        "held, s": held,
        "written after, s": took,
        "next one due after, s": period,
        "share, %": share,
        "a step, s": step,
    }
    if beside:
        slower = max(0.0, 1 - step / median(beside))
        row["a step beside a write, s"] = median(beside)
        row["the training loses, %"] = 100 * (held + slower * (took - held)) / period
    found.rows.append(row)
    found.check(share <= 2, f"checkpoints take {share:.2f} % of the time, > 2 %")


SECTIONS: dict[str, tuple[str, Callable[..., None]]] = {
    "cpu": ("float32 beside the CPU's", against_cpu),
    "bfloat16": ("bfloat16 beside float32", bfloat16),
    "compile": ("torch.compile", compiled),
    "train": ("Training", training),
    "sample": ("Sampling", sampled),
    "processes": ("One process and several", processes),
    "reached": ("What a preset reaches", reached),
    "checkpoints": ("Checkpoints' share of the time", checkpoints),
}
"""Name → title, function."""

_CIFAR = (3, 32, 32)
_BOTH = {"36 M": OF_36_M, "60 M": OF_60_M}
NFE = 35
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"network": OF_28_PIXELS, "shape": _CIFAR, "batch": 16, "calls": NFE, "steps": 20},
    "bfloat16": {"networks": _BOTH, "shape": _CIFAR, "batch": 128, "steps": 30},
    "compile": {"networks": _BOTH, "shape": _CIFAR, "batch": 128, "steps": 30}
    | {"precision": "bfloat16"},
    "train": {"networks": _BOTH, "shape": _CIFAR, "batch": 128, "steps": 30, "matrix": 8192}
    | {"modes": (FLOAT32, TF32, BFLOAT16, FASTEST)},
    "sample": {"network": OF_36_M, "shape": _CIFAR, "batches": (32, 128, 512), "matrix": 8192}
    | {"samplers": (Heun(18), SDEDPMSolver(35)), "modes": (FLOAT32, TF32, BFLOAT16)},
    "processes": {"network": OF_36_M, "shape": _CIFAR, "batch": 256, "parts": 8, "steps": 20},
    "reached": {"preset": "fashion", "tried": 100, "minutes": 20.0},
    "checkpoints": {"network": OF_60_M, "shape": (3, 8, 8), "batch": 4}
    | {"wanted": 2, "between": 10},
}
"""Section → the arguments of its function."""

_SMALL = (3, 8, 8)
_ONE = {"8 pixels": OF_8_PIXELS}
TINY: dict[str, dict[str, Any]] = {
    "cpu": {"network": OF_8_PIXELS, "shape": _SMALL, "batch": 16, "calls": 3, "steps": 3},
    "bfloat16": {"networks": _ONE, "shape": _SMALL, "batch": 16, "steps": 2},
    "compile": {"networks": _ONE, "shape": _SMALL, "batch": 8, "steps": 2, "precision": "float32"},
    "train": {"networks": _ONE, "shape": _SMALL, "batch": 8, "steps": 2, "matrix": 64}
    | {"modes": (FLOAT32, BFLOAT16)},
    "sample": {"network": OF_8_PIXELS, "shape": _SMALL, "batches": (16,), "matrix": 64}
    | {"samplers": (Heun(18), SDEDPMSolver(35)), "modes": (FLOAT32, BFLOAT16)},
    "processes": {"network": OF_8_PIXELS, "shape": _SMALL, "batch": 8, "parts": 4, "steps": 2}
    | {"most": 2},
    "reached": {"preset": "fashion", "tried": 2, "minutes": 0.05, "dataset": "digits"}
    | {"held_out": 0.5, "count": 32},
    "checkpoints": {"network": OF_8_PIXELS, "shape": _SMALL, "batch": 8, "wanted": 2}
    | {"between": 3},
}
"""The same for the rehearsal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each section's table; return the exit status."""
    given_here = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tiny", action="store_true", help="the rehearsal's sizes")
    parser.add_argument("--minutes", type=float, help="of training in all, in section reached")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, default=Path(".scoremodel/gpu"), help="of checkpoints"
    )
    given = parser.parse_args(given_here)
    if given.device not in devices():
        parser.error(
            f"--device: {given.device} is not on this machine, allowed: {', '.join(devices())}"
        )
    torch.set_num_threads(given.threads)
    device, sizes = torch.device(given.device), TINY if given.tiny else SIZES
    command = shlex.join(["python", "-m", "benchmarks.gpu", *given_here])
    where = f"{device_name(device)}, {given.threads} threads, torch {torch.__version__}"
    failed = False
    for name in given.sections:
        title, act = SECTIONS[name]
        found = Found()
        more: dict[str, Any] = {"folder": given.folder} if name == "checkpoints" else {}
        if name == "reached" and given.minutes is not None:
            more = {"minutes": given.minutes}
        print(f"## {title}\n\n*{where}; `{command}`*\n", flush=True)
        try:
            act(found, device, **sizes[name] | more)
        except Exception as error:  # the other sections are measured all the same
            traceback.print_exc()
            said = " ".join(str(error).split())[:200]
            found.broken.append(f"{type(error).__name__}: {said}")
        if found.rows:
            table = pd.DataFrame(found.rows).astype(object)
            table = table.where(table.notna(), "")
            print(table.to_markdown(index=False, floatfmt=".3g") + "\n", flush=True)
        for line in found.broken:
            print(f"**Failed**: {line}\n")
        for line in found.missing:
            print(f"Not measured: {line}.\n")
        failed |= bool(found.broken)
        torch.cuda.empty_cache()  # for the processes that a section may start
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
