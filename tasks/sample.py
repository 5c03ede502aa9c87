"""Stage sample: a trained model and a sampler → samples of every sampling seed, and a picture.

What is drawn is kept in parts, each of one sampling seed, until the stage ends; with
`checkpoints.keep_samples` beyond that, so that the stage with more sampling seeds draws the new ones only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from scoremodel.data.scale import quantise
from scoremodel.io.checkpoint import Chunks, Stopped
from scoremodel.io.denoisers import load
from scoremodel.precision import resolve_precision
from scoremodel.processes.base import process_from_config
from scoremodel.rng import random_uniform
from scoremodel.samplers.base import SAMPLERS, Sampler
from scoremodel.samplers.sampling import equal_parts, sample
from tasks.files.arrays import shown, write_arrays
from tasks.files.device import Machine, device_name, environment, set_up_device
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.ranks import with_helpers
from tasks.files.resolved import resolved
from tasks.files.stage import code_of, run_stage
from tasks.files.state import state_folder, stop_on_signals
from tasks.files.timing import write_timing

__all__ = ["KEPT", "array_name", "build_sampler", "draw_labels", "main"]

_OF_ANY = ("kind", "guidance", "autoguide", "path", "ema_half_life", "ema_std", "precision")
"""What a block says that is not the sampler's own."""
KEPT = "kept"
"""Name of the file in a state folder that says: all of this is finished, and stays for more seeds."""


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
    upto = torch.tensor(counts, dtype=torch.float64).cumsum(0)
    u = random_uniform(seed, "label", range(count), ()).double()
    return torch.searchsorted(upto / upto[-1], u, right=True)


def build_sampler(chosen: Mapping[str, Any]) -> Sampler:
    """Return the sampler that a block describes, `check` having filled it in."""
    own: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in chosen.items()
        if key not in _OF_ANY
    }
    made: Sampler = SAMPLERS.make(chosen["kind"], **own)
    return made


def main(files: Configuration, helps: bool = False) -> None:
    """Write one array for each sampling seed, with the counted number of network calls.

    Args:
        files: says which model and sampler.
        helps: whether to draw only what the process that writes has not drawn yet.

    Raises:
        FloatingPointError: if a sample holds a value that is not finite; nothing is written.
    """
    chosen, draws = resolved(f"samplers/{files.sampler}"), resolved("judge/draws")
    machine = Machine.read()
    device = set_up_device(machine)
    where, computed = environment(device, machine), resolve_precision(chosen["precision"], device)
    if computed != "float32":
        where = f"{where}, {computed}"
    average = {"ema_half_life": chosen["ema_half_life"], "ema_std": chosen.get("ema_std")}
    denoiser = load(files.weights, device, **average)
    weaker = chosen.get("autoguide")
    guide = None
    if weaker is not None:
        named = {"ema_half_life" if weaker >= 1 else "ema_std": weaker}
        guide = load(files.weights, device, **named)
    sampler = build_sampler(chosen)
    along = chosen["path"]
    path = denoiser.process if along is None else process_from_config(along)
    count, seeds = draws["count"], draws["sampling_seeds"]
    folder = state_folder(
        f"samples-{files.name}",
        {
            "weights": file_hash(files.weights),
            "sampler": chosen,
            "draws": {key: draws[key] for key in draws.keys() - {"sampling_seeds"}},
            "environment": where,
            "code": code_of(files),
        },
    )
    steps = len(sampler.plan(path))
    keep = resolved("keeping")["checkpoints"]["keep_samples"]

    began, on_the_clock = time.perf_counter(), time.time()
    arrays: dict[str, NDArray[Any]] = {}
    calls: list[int] = []
    broken: set[int] = set()
    parts = equal_parts(count, draws["batch_size"])
    labels = {seed: draw_labels(denoiser.info["label_counts"], count, seed) for seed in seeds}
    with (
        stop_on_signals() as stop,
        tqdm(total=len(seeds) * len(parts) * steps, desc=sampler.kind, unit="step") as bar,
    ):
        chunks = Chunks(folder, stop)

        def progress(*_: object) -> None:
            bar.update()
            if stop():
                raise Stopped(
                    f"stopped, what is finished is in {folder}; the same command goes on from there"
                )

        def draw(seed: int, part: range) -> dict[str, Tensor]:
            bar.update(chunks.count() * steps - bar.n)
            of_part = labels[seed]
            drawn = sample(
                denoiser,
                sampler,
                len(part),
                seed,
                labels=None if of_part is None else of_part[part.start : part.stop],
                guidance=chosen["guidance"],
                guide=guide,
                precision=computed,
                start=part.start,
                process=path,
                batch_size=len(part),
                callback=progress,
            )
            # Counted over all parts: what is not finite has no grey level.
            finite = drawn.x.isfinite().flatten(1).all(dim=1)
            if not bool(finite.all()):
                broken.add(seed)
            return {
                "x": quantise(drawn.x[finite], denoiser.levels),
                "nfe": torch.tensor(drawn.nfe),
                "broken": (~finite).sum(),
            }

        work = {
            seed: {f"seed-{seed}-{part.start:010}": partial(draw, seed, part) for part in parts}
            for seed in seeds
        }
        if helps:
            for own in work.values():
                chunks.fill(own)
            bar.write(
                f"{files.name}: {chunks.computed} of {len(seeds) * len(parts)} parts drawn here"
            )
            return
        with chunks:
            for seed, own in work.items():
                chunks.fill(own)
                if seed in broken:
                    break
            for seed, own in work.items():
                found = [chunks.get(name, make) for name, make in own.items()]
                bar.update((len(arrays) + 1) * len(parts) * steps - bar.n)
                if wrong := sum(int(one["broken"]) for one in found):
                    chunks.remove()
                    raise FloatingPointError(
                        f"{files.name}: {wrong} of {count} samples of sampling seed {seed} hold a "
                        "value that is not finite; no samples are written"
                    )
                arrays[array_name(seed)] = torch.cat([one["x"] for one in found]).numpy()
                calls += [int(one["nfe"]) for one in found]
            seconds = time.perf_counter() - began
            info = {
                "model": denoiser.info,
                "ema_half_life": denoiser.ema_half_life,
                "ema_std": denoiser.ema_std,
                "nfe": round(sum(calls) / len(calls)),  # an adaptive sampler's differ
                "labels": {
                    array_name(seed): asked.tolist()
                    for seed, asked in labels.items()
                    if asked is not None
                }
                or None,
                "environment": where,
            }
            write_arrays(files.samples, arrays, info)
            first = shown(arrays[array_name(seeds[0])])
            picture = {"picture": "grid", "levels": denoiser.levels}
            write_arrays(files.shown, {"data": first}, picture)
            # What earlier runs drew of these took is not known.
            if chunks.count(since=on_the_clock) == len(calls):
                timing = {
                    "seconds_per_1000": 1000 * seconds / (count * len(seeds)),
                    "device": device_name(device),
                }
                write_timing(files.samples, timing)
            if keep:
                (folder / KEPT).touch()
            else:
                chunks.remove()


if __name__ == "__main__":
    run_stage(with_helpers(main), "dataset", "model", "train_seed", "sampler", helped=True)
