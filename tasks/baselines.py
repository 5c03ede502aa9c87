"""Stage baselines: what real data score, and what a Gaussian does, beside every model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.baseline import gaussian_samples
from scoremodel.evaluation.distance import kernel_distance, real_floor, subset_rows
from scoremodel.evaluation.manifold import manifold
from scoremodel.evaluation.memorisation import NEAR, likelihood_gap
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.scores import score
from scoremodel.io.files import write_text
from tasks.files.arrays import read_card, read_rows
from tasks.files.extraction import extracted
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.results.scoring import reference, spreads
from tasks.results.spread import rounded, spread

__all__ = ["main"]


def _real(
    real: Reference, labels: NDArray[np.integer] | None, count: int, seed: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Return what `count` fresh training points score against held-out data, over `repeats` subsets.

    Training points are no test of copying; there held-out points stand for samples, once.
    """
    draw = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        rows = real.fresh[subset_rows(count, len(real.fresh), draw, labels)]
        shares = manifold(rows, real.matched, real.neighbours).shares()
        shares["kid"] = kernel_distance(rows, real.held_out)
        for name, value in shares.items():
            found.setdefault(name, []).append(value)
    order = draw.permutation(len(real.new))
    size = min(count, len(order) // 2)
    gap = likelihood_gap(real.new[order[:size]], real.fitted, real.new[order[size:]])
    found |= {
        "authentic": [float((real.held_out_ratios > 1).mean())],
        "copies": [float((real.held_out_ratios < NEAR).mean())],
        "likelihood_gap": [gap],
    }
    return {name: spread(values) for name, values in found.items()}


def main(files: Configuration) -> None:
    """Write the floor, the other metrics of real data, and all metrics of the Gaussian baseline."""
    how, card = resolved("judge/floor"), read_card(files.card)
    data = read_rows(files.arrays, card)
    labels = data.get("train_labels")
    count, seeds = how["count"], how["sampling_seeds"]
    drawn = {
        f"{seed}": gaussian_samples(data["train"], count, seed, card["levels"]) for seed in seeds
    }
    made_of = {"data": file_hash(files.card), "count": count}
    with (
        extracted("gaussian", files, drawn, made_of, panel=False) as ((judge,), where),
        # One thread, whatever the machine has: the order of a sum shows in a distance's last digits.
        threadpool_limits(1),
    ):
        real, _ = reference(files, how)
        labels = None if labels is None else labels[real.fresh_rows]
        floor = real_floor(
            real.fresh, real.held_out, count, how["seed"], how["floor_repeats"], labels
        )

        def scale(samples: int) -> float:
            """Return how the floor goes with the number of samples, by its bias's law."""
            return 1 / samples + 1 / len(real.held_out)

        gaussian = spreads([score(rows.numpy(), real) for rows in judge.features.values()])
        found = {
            "floor": {
                "value": rounded(floor.value),
                "std": None if floor.std is None else rounded(floor.std),
                "count": floor.count,
                "at_count": rounded(floor.value * scale(count) / scale(floor.count)),
            },
            "real": _real(real, labels, floor.count, how["seed"], len(seeds)),
            "gaussian": gaussian,
            "environment": where,
        }
        write_text(files.baselines, json.dumps(found, indent=2) + "\n")
    print(
        f"{files.dataset}: floor {floor.value:.4g} of N = {floor.count}, a Gaussian of the data's mean "
        f"and covariance {gaussian['held_out']['mean']:.4g}"
    )


if __name__ == "__main__":
    run_stage(main, "dataset")
