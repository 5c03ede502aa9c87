"""Stage evaluate: features → one deterministic record of a configuration's distances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.distance import frechet_distance, real_floor
from scoremodel.files import write_text
from tasks.arrays import read_arrays, read_card, read_rows
from tasks.hashes import file_hash
from tasks.layout import Data
from tasks.params import ParamsError
from tasks.stage import parse_configuration, run

__all__ = ["main", "metric_name", "rounded"]


def metric_name(extractor: str, digest: str) -> str:
    """Return what the distance is called: only Inception's is FID, others name their extractor."""
    return f"FD ({extractor} {digest[:8]})"


def rounded(value: float) -> float:
    """Return `value` with six significant digits: more would be rounding noise of the square root."""
    return float(f"{value:.6g}")


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": rounded(float(np.mean(values))),
        "std": rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None,
        "by_seed": [rounded(value) for value in values],
    }


def main(arguments: Sequence[str]) -> None:
    """Write the record: distances to held-out and to train, beside the floor."""
    configuration, params = parse_configuration(arguments)
    files = Data(configuration.dataset)
    card = read_card(files.card)
    data = read_rows(files.arrays)
    real, _ = read_arrays(files.features)
    fake, info = read_arrays(configuration.features)
    evaluation = params.evaluation
    width = real["train"].shape[1]
    for where, found in (
        ("evaluation.count", evaluation.count),
        (f"datasets.{configuration.dataset}: held-out data points", len(real["held_out"])),
    ):
        if found <= width:
            raise ParamsError(
                f"params.yaml: {where}: {found} is not allowed, allowed: more than the {width} "
                "features, whose covariance they must determine"
            )
    # One thread, whatever the machine has: the order of a sum shows in the distance's last digits.
    with threadpool_limits(1):
        floor = real_floor(
            real["train"],
            real["held_out"],
            evaluation.count,
            params.seed,
            evaluation.floor_repeats,
            data.get("train_labels"),
        )
        to_held_out = _spread([frechet_distance(f, real["held_out"]) for f in fake.values()])
        to_train = _spread([frechet_distance(f, real["train"]) for f in fake.values()])
    chosen = params.samplers[configuration.sampler]
    agreement = info["agreement"]
    record = {
        "dataset": configuration.dataset,
        "data_sha256": card["sha256"],
        "model": configuration.model,
        "train_seed": configuration.train_seed,
        "sampler": configuration.sampler,
        "sampler_kind": chosen.kind,
        "steps": getattr(chosen, "steps", None),
        "guidance": chosen.guidance,
        "ema_half_life": info["ema_half_life"],
        "nfe": info["nfe"],
        "count": evaluation.count,
        "sampling_seeds": evaluation.sampling_seeds,
        "metric": metric_name(info["extractor"], file_hash(files.extractor)),
        "held_out": to_held_out,
        "train": to_train,
        "floor": {
            "value": rounded(floor.value),
            "std": None if floor.std is None else rounded(floor.std),
            "count": floor.count,
        },
        "ratio_to_floor": rounded(to_held_out["mean"] / floor.value),
        "agreement": None if agreement is None else _spread(list(agreement.values())),
        "parameters": info["model"]["parameters"],
        "train_images": info["model"]["train_images"],
        "environment": {
            "train": info["model"]["environment"],
            "sample": info["environment"],
            "evaluate": f"scipy {version('scipy')}, clean-fid {version('clean-fid')}",
        },
    }
    write_text(configuration.record, json.dumps(record, indent=2) + "\n")
    print(
        f"{configuration.name}: {record['metric']} to held-out {to_held_out['mean']:.3f}, "
        f"to train {to_train['mean']:.3f}, floor {floor.value:.3f}"
    )


if __name__ == "__main__":
    run(main)
