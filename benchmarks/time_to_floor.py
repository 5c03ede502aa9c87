"""Processor seconds of training until samples are as good as the floor: `python -m benchmarks.time_to_floor`.

An entry is a model of `params.yaml` on a data set. It is trained with each seed from scratch, on one
thread, and counts if for all seeds the distance of its samples to held-out data is at most `--target`
times the floor (`scoremodel.evaluation.distance.real_floor`). Fixed are the judge (the classifier that
is shipped for the data), the split, the sampler (SDE-DPM-Solver++, 35 network calls), the number of
samples and their seeds. The time is the training's own processor time, without sampling and judging;
the entry's is the mean over the seeds. What is finished is kept in a state folder: stopped, it goes on
with the next seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from threadpoolctl import threadpool_limits

from scoremodel.data.scale import quantise, to_unit
from scoremodel.data.sources.base import RawData, load_source
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.distance import Floor, frechet_distance, moments, real_floor
from scoremodel.evaluation.extractors.base import Extractor, load_extractor
from scoremodel.evaluation.extractors.shipped import shipped_file
from scoremodel.io.files import write_text
from scoremodel.processes.base import process_from_config
from scoremodel.samplers.multistep import SDEDPMSolver
from scoremodel.samplers.sampling import sample
from scoremodel.training.loop import train
from tasks.files.device import device_name
from tasks.files.hashes import content_hash, file_hash
from tasks.params.errors import ParamsError
from tasks.params.overrides import overridden
from tasks.params.resolve import network_of
from tasks.prepare import card_of, split
from tasks.train import build_denoiser, training_config

SOURCES: dict[str, dict[str, Any]] = {
    "digits": {"kind": "digits"},
    "mnist": {"kind": "torchvision", "name": "MNIST"},
    "fashion_mnist": {"kind": "torchvision", "name": "FashionMNIST"},
}
TARGETS = {"digits": 1.25, "mnist": 2.0, "fashion_mnist": 2.0}
"""Times the floor."""
HELD_OUT: dict[str, float | str] = {"digits": 0.5, "mnist": "source", "fashion_mnist": "source"}
COUNTS = {"digits": (448, 12), "mnist": (1000, 3), "fashion_mnist": (1000, 3)}
"""Samples, and sampling seeds."""
SAMPLER = SDEDPMSolver(35)


class Judge:
    """A data set's training split, and what tells how far samples are from its held-out one.

    Args:
        dataset: its name.
        root: where torchvision's data lie.
    """

    def __init__(self, dataset: str, root: Path) -> None:
        source = SOURCES[dataset] | ({} if dataset == "digits" else {"root": str(root.resolve())})
        raw: RawData = load_source(source, folder=Path())
        rows, held_out = split(raw, HELD_OUT[dataset], None, dataset, 0)
        self.card = card_of(dataset, raw, rows, held_out, digest="")
        self.train = torch.from_numpy(raw.x[rows])
        self.labels = None if raw.labels is None else torch.from_numpy(raw.labels[rows])
        self.extractor: Extractor = load_extractor(shipped_file(dataset, 0), "cpu")
        self.count, self.seeds = COUNTS[dataset]
        with threadpool_limits(1):
            features = self.extractor.features(self.train).numpy()
            fresh = np.flatnonzero(~self.extractor.has_seen(raw.x[rows]))
            real = self.extractor.features(torch.from_numpy(raw.x[held_out])).numpy()
            labels = None if raw.labels is None else raw.labels[rows][fresh]
            self.floor: Floor = real_floor(features[fresh], real, self.count, 0, labels=labels)
            self.held_out = moments(real, "the held-out features")

    def ratio(self, denoiser: Denoiser, seeds: int | None = None) -> float:
        """Return the distance of a model's samples, in floors: the mean over its sampling seeds."""
        distances = []
        for seed in range(seeds or self.seeds):
            drawn = sample(denoiser, SAMPLER, self.count, seed, batch_size=100)
            with threadpool_limits(1):
                pixels = quantise(drawn.x, self.card["levels"])
                rows = self.extractor.features(pixels).numpy()[: self.floor.count]
                distances.append(frechet_distance(rows, self.held_out))
        return float(np.mean(distances)) / self.floor.value


def trained(model: dict[str, Any], judge: Judge, seed: int) -> tuple[Denoiser, float]:
    """Train a model as the pipeline does, and return it with the processor seconds that this took."""
    card, labels = judge.card, None
    if model["training"].get("label_dropout") is not None:
        labels = judge.labels
    process = process_from_config(model["sde"], lambda: to_unit(judge.train, card["levels"]))
    began = time.process_time()
    denoiser = build_denoiser(model, card, process, seed)
    config = training_config(model["training"])
    averaged = train(denoiser, judge.train, config, seed, progress=True, labels=labels).denoiser
    return averaged, time.process_time() - began


def entry(
    name: str, model: dict[str, Any], judge: Judge, seeds: int, state: Path
) -> list[dict[str, float]]:
    """Return what each seed's training took and came to, of those in the state folder too."""
    found = []
    for seed in range(seeds):
        path = state / f"{name}-{seed}.json"
        if not path.exists():
            denoiser, seconds = trained(model, judge, seed)
            said = {"seconds": seconds, "ratio": judge.ratio(denoiser)}
            write_text(path, json.dumps(said) + "\n")
        found.append(json.loads(path.read_text()))
        print(
            f"{name}, seed {seed}: {found[-1]['seconds']:.1f} s, {found[-1]['ratio']:.3f} floors",
            flush=True,
        )
    return found


def main() -> None:
    """Print a line of the record's table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=SOURCES, default="digits")
    parser.add_argument("--models", nargs="+", default=["ve", "vp"], help="of params.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--target", type=float, help="times the floor; default: 1.25 for digits, else 2"
    )
    parser.add_argument(
        "--data", type=Path, default="data/torchvision", help="holds torchvision's archives"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of params.yaml"
    )
    parser.add_argument("--state", type=Path, help="default: a folder for these very conditions")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = given.dataset
    target = TARGETS[dataset] if given.target is None else given.target
    if wrong := [one for one in given.set if "=" not in one]:
        parser.error(f"--set: {wrong[0]!r} is not allowed, allowed: KEY=VALUE")
    values = {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in given.set)}
    try:
        params = overridden(Path("params.yaml"), values)
    except (ParamsError, ValueError) as error:
        parser.error(str(error))
    blocks = params.model_dump(exclude_unset=True)["models"]
    if unknown := [name for name in given.models if name not in blocks]:
        parser.error(f"--models: {unknown[0]!r} is not allowed, allowed: {', '.join(blocks)}")
    models = {name: blocks[name] for name in given.models}
    for model in models.values():
        kind = network_of("images", model["network"])
        model["network"] = {kind: model["network"][kind]}
    code = [file_hash(path) for path in sorted(Path("scoremodel").rglob("*.py"))]
    conditions = {"dataset": dataset, "models": models, "torch": torch.__version__, "code": code}
    state = given.state or Path(f".scoremodel/time-to-floor-{content_hash(conditions)[:12]}")
    state.mkdir(parents=True, exist_ok=True)
    print(f"what is finished is in {state}", flush=True)
    judge = Judge(dataset, given.data)
    rows = []
    for name, model in models.items():
        found = entry(name, model, judge, given.seeds, state)
        seconds = [one["seconds"] for one in found]
        ratios = [one["ratio"] for one in found]
        rows.append(
            {
                "data set": dataset,
                "model": name,
                "steps × batch": f"{model['training']['steps']:,} × {model['training']['batch_size']}",
                "seconds": statistics.mean(seconds),
                "of seeds": f"{min(seconds):.1f}–{max(seconds):.1f}",
                "× floor": ", ".join(f"{one:.2f}" for one in ratios),
                f"≤ {target:g}": f"{sum(one <= target for one in ratios)} of {len(ratios)}",
            }
        )
    print(
        f"\n*{device_name('cpu')}, one thread, torch {torch.__version__}, processor seconds; "
        f"floor {judge.floor.value:.3f} of N = {judge.floor.count}*\n"
    )
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()
