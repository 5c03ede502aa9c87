"""Stage sample: a trained model and a sampler → samples of every sampling seed, and a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.io.checkpoint import Chunks, Stopped
from scoremodel.data.scale import quantise
from scoremodel.denoiser import load
from scoremodel.rng import generators
from scoremodel.samplers import sample
from tasks.arrays import write_arrays
from tasks.device import device_name, environment, set_up_device
from tasks.hashes import file_hash
from tasks.layout import Configuration
from tasks.pictures import save_picture
from tasks.process import build_process
from tasks.sampler import build_sampler
from tasks.stage import parse_configuration, run
from tasks.state import state_folder, stop_on_signals
from tasks.timing import write_timing

__all__ = ["array_name", "draw_labels", "main"]


def array_name(seed: int) -> str:
    """Return the name that the samples (or their features) of one sampling seed have in a file."""
    return f"seed_{seed}"


def draw_labels(counts: Sequence[int] | None, count: int, seed: int) -> Tensor | None:
    """Return the class to ask for of each sample, drawn as often as the training data have it.

    Args:
        counts: number of training data points of each class, None for an unconditional model.
        count: number of samples.
        seed: sampling seed; label i is a function of (seed, i).

    Returns:
        Class numbers with shape (count,), or None.
    """
    if counts is None:
        return None
    share = torch.tensor(counts, dtype=torch.float64)
    streams = generators(seed, "label", range(count))
    return torch.cat([torch.multinomial(share, 1, generator=stream) for stream in streams])


def main(arguments: Sequence[str]) -> None:
    """Write one array for each sampling seed, with the counted number of network calls."""
    configuration: Configuration
    configuration, params = parse_configuration(arguments)
    device = set_up_device(params)
    chosen = params.samplers[configuration.sampler]
    denoiser = load(configuration.weights, device, chosen.ema_half_life)
    sampler = build_sampler(chosen)
    path = denoiser.process if chosen.path is None else build_process(chosen.path)
    assert path is not None
    evaluation = params.evaluation
    count, size = evaluation.count, evaluation.batch_size
    folder = state_folder(
        f"samples-{configuration.name}",
        params,
        {
            "weights": file_hash(configuration.weights),
            "sampler": chosen.model_dump(),
            "count": count,
            "batch_size": size,
            "environment": environment(device, params),
        },
    )
    steps = len(sampler.plan(path))

    began = time.perf_counter()
    arrays: dict[str, NDArray[Any]] = {}
    asked: dict[str, list[int]] = {}
    calls: list[int] = []
    starts = range(0, count, size)
    with (
        stop_on_signals() as stop,
        Chunks(folder, stop) as chunks,
        tqdm(
            total=len(evaluation.sampling_seeds) * len(starts) * steps,
            desc=chosen.kind,
            unit="step",
        ) as bar,
    ):

        def progress(*_: object) -> None:
            bar.update()
            if stop():
                raise Stopped(
                    f"stopped, what is finished is in {folder}; the same command goes on from there"
                )

        def draw(seed: int, start: int, labels: Tensor | None) -> dict[str, Tensor]:
            drawn = sample(
                denoiser,
                sampler,
                min(size, count - start),
                seed,
                labels=labels,
                guidance=chosen.guidance,
                start=start,
                process=path,
                batch_size=size,
                callback=progress,
            )
            return {"x": quantise(drawn.x, denoiser.levels), "nfe": torch.tensor(drawn.nfe)}

        resumed = chunks.exist()
        for seed in evaluation.sampling_seeds:
            labels = draw_labels(denoiser.info["label_counts"], count, seed)
            parts = []
            for start in starts:
                asked_here = None if labels is None else labels[start : start + size]
                name = f"seed-{seed}-{start:010}"
                parts.append(chunks.get(name, partial(draw, seed, start, asked_here)))
                bar.update(len(arrays) * len(starts) * steps + len(parts) * steps - bar.n)
            arrays[array_name(seed)] = torch.cat([part["x"] for part in parts]).numpy()
            if labels is not None:
                asked[array_name(seed)] = labels.tolist()
            calls += [int(part["nfe"]) for part in parts]
        seconds = time.perf_counter() - began
        info = {
            "model": denoiser.info,
            "ema_half_life": denoiser.ema_half_life,
            "nfe": round(sum(calls) / len(calls)),  # an adaptive sampler's differ
            "labels": asked or None,
            "environment": environment(device, params),
        }
        write_arrays(configuration.samples, arrays, info)
        first = arrays[array_name(evaluation.sampling_seeds[0])]
        save_picture(first, denoiser.levels, configuration.grid)
        if not resumed:  # what the part before the interruption took is not known
            drawn = count * len(evaluation.sampling_seeds)
            timing = {"seconds_per_1000": 1000 * seconds / drawn, "device": device_name(device)}
            write_timing(configuration.samples, timing)
        chunks.remove()


if __name__ == "__main__":
    run(main)
