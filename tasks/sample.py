"""Stage sample: a trained model and a sampler → samples of every sampling seed, and a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from scoremodel.data.scale import quantise
from scoremodel.denoiser import load
from scoremodel.rng import generators
from scoremodel.samplers import sample
from tasks.arrays import write_arrays
from tasks.device import device_name, environment, set_up_device
from tasks.layout import Configuration
from tasks.pictures import save_picture
from tasks.process import build_process
from tasks.sampler import build_sampler
from tasks.stage import parse_configuration, run
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
    device = set_up_device(params.device, params.threads)
    denoiser = load(configuration.weights, device)
    chosen = params.samplers[configuration.sampler]
    sampler = build_sampler(chosen)
    path = None if chosen.path is None else build_process(chosen.path)
    evaluation = params.evaluation

    began = time.perf_counter()
    arrays, asked, nfe = {}, {}, 0
    for seed in evaluation.sampling_seeds:
        labels = draw_labels(denoiser.info["label_counts"], evaluation.count, seed)
        drawn = sample(
            denoiser,
            sampler,
            evaluation.count,
            seed,
            labels=labels,
            guidance=chosen.guidance,
            process=path,
            batch_size=evaluation.batch_size,
            progress=True,
        )
        arrays[array_name(seed)] = quantise(drawn.x, denoiser.levels).cpu().numpy()
        if labels is not None:
            asked[array_name(seed)] = labels.tolist()
        nfe = drawn.nfe
    seconds = time.perf_counter() - began
    info = {
        "model": denoiser.info,
        "nfe": nfe,
        "labels": asked or None,
        "environment": environment(device, params.threads),
    }
    write_arrays(configuration.samples, arrays, info)
    first = arrays[array_name(evaluation.sampling_seeds[0])]
    save_picture(first, denoiser.levels, configuration.grid)
    count = evaluation.count * len(evaluation.sampling_seeds)
    write_timing(
        configuration.samples,
        {"seconds_per_1000": 1000 * seconds / count, "device": device_name(device)},
    )


if __name__ == "__main__":
    run(main)
