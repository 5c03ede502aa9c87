"""Fashion-MNIST with the same wall-clock budget for everybody: `make benchmark-equal-budget`.

This project's VE and VP, as `params.yaml` has them for 28×28 images (`fashion_ve`, `fashion_vp`), and
three peers with the defaults of their own examples for such images and the speed-ups that they
document (`benchmarks.peers`) are trained on the same cores for the same number of minutes, one after
the other. (The other two peers there have examples for larger images only.) Ours fit their learning
rate's schedule to the budget; the peers' examples have constant rates. Then each draws 1,000 images
with at most 50 network calls for each, and two extractors that none was tuned on compare them with
the test split: a classifier of the clothes with a seed of its own, and one that tells by how much an
image is turned. What is finished is kept in a state folder: stopped, it goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.peers import PEERS
from scoremodel.data.scale import quantise, to_unit
from scoremodel.data.sources.torchvision import load_torchvision
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.distance import frechet_distance, real_floor
from scoremodel.evaluation.extractors.base import load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import (
    Classifier,
    rotations,
    train_classifier,
)
from scoremodel.io.files import atomic_path, write_text
from scoremodel.processes.base import process_from_config
from scoremodel.rng import generator
from scoremodel.samplers.sampling import sample
from scoremodel.training.loop import train
from tasks.files.device import device_name
from tasks.files.hashes import content_hash, file_hash
from tasks.params.load import load_params
from tasks.report.pictures.grid import picture
from tasks.sample import build_sampler
from tasks.train import build_denoiser, training_config

OURS = {"scoremodel VE": "fashion_ve", "scoremodel VP": "fashion_vp"}
THEIRS = ("smalldiffusion", "torchcfm", "azula")
SAMPLER = "sde_dpm_solver"
COUNT = 1000
LEVELS = 256
SEED = 20  # of the extractors, used nowhere else


def _said(key: str, name: str) -> dict[str, Any]:
    """Return a block of `params.yaml`, its defaults filled in."""
    blocks: dict[str, Any] = load_params().model_dump(exclude_unset=True)[key]
    block: dict[str, Any] = blocks[name]
    return block


def train_ours(model: str, pixels: Tensor, seconds: float) -> tuple[Denoiser, dict[str, Any]]:
    """Train one of `params.yaml`'s models for about `seconds`.

    The number of steps, on which the learning rate depends, follows from the speed of the first few,
    which count too.
    """
    block = _said("models", model)
    block["network"] = {"unet": block["network"]["unet"]}
    scaled = to_unit(pixels, LEVELS)
    mean = float(scaled.mean())
    card = {
        "shape": list(pixels.shape[1:]),
        "mean": [mean],
        "std": float((scaled - mean).square().mean().sqrt()),
        "levels": LEVELS,
        "class_counts": None,
    }
    process = process_from_config(block["sde"])

    def run(steps: int) -> tuple[Denoiser, float]:
        began = time.perf_counter()
        training = block["training"] | {"steps": steps}
        denoiser = build_denoiser(block, card, process, 0)
        trained = train(denoiser, pixels, training_config(training), 0, progress=True).denoiser
        return trained, time.perf_counter() - began

    tried = 20
    _, spent = run(tried)
    steps = int(0.97 * (seconds - spent) / (spent / tried))
    denoiser, taken = run(steps)
    return denoiser, {
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "steps": steps,
        "images": steps * block["training"]["batch_size"],
        "seconds": spent + taken,
    }


def ours(model: str, pixels: Tensor, seconds: float) -> tuple[Tensor, dict[str, Any]]:
    """Train and sample one of ours."""
    denoiser, said = train_ours(model, pixels, seconds)
    sampler = build_sampler(_said("samplers", SAMPLER))
    drawn = sample(denoiser, sampler, COUNT, 0, batch_size=100, progress=True)
    return drawn.x, said | {"NFE": drawn.nfe}


def theirs(name: str, pixels: Tensor, seconds: float) -> tuple[Tensor, dict[str, Any]]:
    """Train and sample a peer."""
    torch.manual_seed(0)
    peer = PEERS[name](fast=True)
    began, steps = time.perf_counter(), 0
    order: list[Tensor] = []
    while time.perf_counter() - began < seconds:
        if not order:
            shuffled = torch.randperm(len(pixels), generator=generator(0, "order", steps))
            order = [
                part for part in shuffled.split(peer.batch_size) if len(part) == peer.batch_size
            ]
        peer.step(to_unit(pixels[order.pop()], LEVELS))
        steps += 1
    taken = time.perf_counter() - began
    drawn = torch.cat([peer.sample(100) for _ in range(COUNT // 100)])
    return drawn, {
        "parameters": peer.parameters(),
        "steps": steps,
        "images": steps * peer.batch_size,
        "seconds": taken,
        "NFE": peer.nfe,
    }


def extractors(state: Path, pixels: Tensor, labels: Tensor) -> dict[str, Classifier]:
    """Return the two extractors, trained once."""
    found = {}
    for task, (x, y) in {
        "classes": (pixels, labels),
        "turns": rotations(pixels[:15_000]),
    }.items():
        path = state / f"extractor-{task}.safetensors"
        if not path.exists():
            save_extractor(train_classifier(x, y, LEVELS, SEED, epochs=5, progress=True), path)
        loaded = load_extractor(path, "cpu")
        assert isinstance(loaded, Classifier)
        found[task] = loaded
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="data/torchvision", help="holds FashionMNIST/raw")
    parser.add_argument("--state", type=Path, help="default: a folder for these very conditions")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    conditions = {
        "minutes": given.minutes,
        "threads": given.threads,
        "ours": [_said("models", model) for model in OURS.values()],
        "sampler": _said("samplers", SAMPLER),
        "torch": torch.__version__,
        "code": [file_hash(path) for path in sorted(Path("scoremodel").rglob("*.py"))],
    }
    state = given.state or Path(f".scoremodel/equal-budget-{content_hash(conditions)[:12]}")
    print(f"what is finished is in {state}", flush=True)
    state.mkdir(parents=True, exist_ok=True)
    raw = load_torchvision("FashionMNIST", given.data)
    assert raw.labels is not None
    assert raw.held_out is not None
    pixels = torch.from_numpy(raw.x[~raw.held_out])
    labels = torch.from_numpy(raw.labels[~raw.held_out])
    held_out = torch.from_numpy(raw.x[raw.held_out])

    rows = []
    for name in (*OURS, *THEIRS):
        stem = name.replace(" ", "-").lower()
        images, said = state / f"{stem}.npy", state / f"{stem}.json"
        if not said.exists():
            print(f"{name}: {given.minutes:g} minutes", flush=True)
            run = (ours, OURS[name]) if name in OURS else (theirs, name)
            drawn, numbers = run[0](run[1], pixels, 60 * given.minutes)
            with atomic_path(images) as temporary, temporary.open("wb") as file:
                np.save(file, quantise(drawn, LEVELS).numpy())
            with atomic_path(state / f"{stem}.png") as temporary:
                picture(np.load(images), LEVELS).save(temporary, format="PNG")
            write_text(said, json.dumps(numbers) + "\n")
        rows.append({"": name, **json.loads(said.read_text())})
    table = pd.DataFrame(rows).set_index("")
    judges = extractors(state, pixels, labels)
    floors = []
    for task, judge in judges.items():
        real = {"train": judge.features(pixels), "held_out": judge.features(held_out)}
        floor = real_floor(
            real["train"].numpy(), real["held_out"].numpy(), COUNT, 0, 20, labels.numpy()
        )
        floors.append(f"{task} {floor.value:.3f}")
        for name in table.index:
            stem = name.replace(" ", "-").lower()
            drawn = torch.from_numpy(np.load(state / f"{stem}.npy"))
            distance = frechet_distance(judge.features(drawn).numpy(), real["held_out"].numpy())
            table.loc[name, f"FD ({task})"] = distance
        column = table[f"FD ({task})"]
        table[f"÷ median peer ({task})"] = column / column[list(THEIRS)].median()
    print(
        f"*{device_name('cpu')}, {given.threads} threads, torch {torch.__version__}, "
        f"{given.minutes:g} minutes each; floor of real images: {', '.join(floors)}*\n"
    )
    print(table.to_markdown(floatfmt=".3f"))


if __name__ == "__main__":
    main()
