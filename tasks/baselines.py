"""Stage baselines: what real data score, and what a Gaussian does, beside every model."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.baseline import gaussian_samples
from scoremodel.evaluation.distance import kernel_distance, real_floor, subset_rows
from scoremodel.evaluation.extractor import load_extractor
from scoremodel.evaluation.manifold import manifold
from scoremodel.evaluation.memorisation import NEAR, likelihood_gap
from scoremodel.evaluation.scores import Reference
from scoremodel.files import write_text
from tasks.arrays import read_card, read_rows
from tasks.layout import Data
from tasks.scoring import reference, rounded, spreads
from tasks.stage import parse_dataset, run

__all__ = ["main"]


def _real(
    real: Reference, labels: NDArray[np.integer] | None, count: int, seed: int, repeats: int
) -> dict[str, float]:
    """Return what `count` training points score against held-out data, means over `repeats` subsets.

    Training points are no test of copying; there held-out points stand for samples.
    """
    draw = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        rows = subset_rows(min(count, len(real.train)), len(real.train), draw, labels)
        shares = manifold(real.train[rows], real.matched, real.neighbours).shares()
        shares["kid"] = kernel_distance(real.train[rows], real.held_out)
        for name, value in shares.items():
            found.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    order = draw.permutation(len(real.new))
    size = min(count, len(order) // 2)
    gap = likelihood_gap(real.new[order[:size]], real.fitted, real.new[order[size:]])
    copied = {
        "authentic": float((real.held_out_ratios > 1).mean()),
        "copies": float((real.held_out_ratios < NEAR).mean()),
        "likelihood_gap": gap,
    }
    return {name: rounded(value) for name, value in (means | copied).items()}


def main(arguments: Sequence[str]) -> None:
    """Write the floor, the other metrics of real data, and all metrics of the Gaussian baseline."""
    name, params = parse_dataset(arguments)
    files, evaluation = Data(name), params.evaluation
    card = read_card(files.card)
    data = read_rows(files.arrays)
    extractor = load_extractor(files.extractor)
    labels = data.get("train_labels")
    # One thread, whatever the machine has: the order of a sum shows in a distance's last digits.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        real, _ = reference(name, params)
        floor = real_floor(
            real.train,
            real.held_out,
            evaluation.count,
            params.seed,
            evaluation.floor_repeats,
            labels,
        )
        drawn = [
            gaussian_samples(data["train"], evaluation.count, seed, card["levels"])
            for seed in evaluation.sampling_seeds
        ]
        gaussian = spreads(
            [real.score(extractor.features(torch.from_numpy(x)).numpy()) for x in drawn]
        )
        others = _real(real, labels, evaluation.count, params.seed, len(evaluation.sampling_seeds))
    found = {
        "floor": {
            "value": rounded(floor.value),
            "std": None if floor.std is None else rounded(floor.std),
            "count": floor.count,
        },
        "real": others,
        "gaussian": gaussian,
    }
    write_text(files.baselines, json.dumps(found, indent=2) + "\n")
    print(
        f"{name}: floor {floor.value:.3f}, a Gaussian of the pixels "
        f"{gaussian['held_out']['mean']:.3f}"
    )


if __name__ == "__main__":
    run(main)
