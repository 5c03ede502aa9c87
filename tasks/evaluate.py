"""Stage evaluate: features → one deterministic record of a configuration's metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scoremodel.evaluation.memorisation import nearest_training
from scoremodel.evaluation.scores import Scores
from scoremodel.io.files import write_text
from tasks.arrays import read_arrays, read_card, read_rows
from tasks.layout import APPLICATIONS_JSON, Data
from tasks.machine import cpu_name
from tasks.pictures import save_neighbours
from tasks.scoring import reference, rounded, spread, spreads
from tasks.stage import parse_configuration, run

__all__ = ["main"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "clean-fid", "pillow")
_SHOWN = 10  # samples in the picture, and columns of it: the sample and its neighbours


def _classes(scores: Sequence[Scores], names: list[str]) -> dict[str, dict[str, float]]:
    """Return class → metric → mean over the sampling seeds that have it."""
    found: dict[str, dict[str, float]] = {}
    for number in scores[0].classes:
        values: dict[str, list[float]] = {}
        for one in scores:
            for metric, value in one.classes[number].items():
                values.setdefault(metric, []).append(value)
        found[names[number]] = {
            metric: rounded(float(np.mean(several))) for metric, several in values.items()
        }
    return found


def main(arguments: Sequence[str]) -> None:
    """Write the record, and a picture of samples beside their nearest training data."""
    configuration, params = parse_configuration(arguments)
    files = Data(configuration.dataset)
    card = read_card(files.card)
    baselines: dict[str, Any] = json.loads(files.baselines.read_text(encoding="utf-8"))
    fake, info = read_arrays(configuration.features)
    evaluation = params.evaluation
    # One thread, whatever the machine has: the order of a sum shows in a distance's last digits.
    with threadpool_limits(1):
        real, judge = reference(configuration.dataset, params)
        asked = info["labels"] or {}
        scores = [
            real.score(features, None if name not in asked else np.array(asked[name]))
            for name, features in fake.items()
        ]
        first = next(iter(fake))
        _, nearest = nearest_training(fake[first][:_SHOWN], real.train, _SHOWN - 1)
    chosen = params.samplers[configuration.sampler]
    agreement = info["agreement"]
    applications = json.loads((configuration.applications / APPLICATIONS_JSON).read_text("utf-8"))
    applied_in = applications.pop("environment", None)
    likelihood = applications["likelihood"]
    notes = real.warnings(evaluation.count)
    if likelihood and not likelihood["dequantised_training"]:
        notes.append(
            "bits/dim of a model that was trained on the grey levels themselves, between which it "
            "has little density: training.dequantise: true is for this"
        )
    metrics = spreads(scores)
    floor = baselines["floor"]["value"]
    record = {
        "dataset": configuration.dataset,
        "data_sha256": card["sha256"],
        "levels": card["levels"],
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
        "metric": judge["metric"],
        **metrics,
        "ratio_to_floor": rounded(metrics["held_out"]["mean"] / floor),
        "agreement": None if agreement is None else spread(list(agreement.values())),
        "memorised": any(one.memorised for one in scores),
        **applications,
        "classes": _classes(scores, list(card["class_counts"] or ())),
        **{name: baselines[name] for name in ("floor", "real", "gaussian")},
        "warnings": notes,
        "parameters": info["model"]["parameters"],
        "train_images": info["model"]["train_images"],
        "environment": {
            "train": info["model"]["environment"],
            "sample": info["environment"],
            "extractor": judge["extractor"],
            "reference": judge["environment"],
            "features": info["features_environment"],
            "baselines": baselines["environment"],
            **({"applications": applied_in} if applied_in else {}),
            "evaluate": ", ".join([cpu_name(), *(f"{name} {version(name)}" for name in _PACKAGES)]),
        },
    }
    samples, _ = read_arrays(configuration.samples)
    train = read_rows(files.arrays)["train"]
    shown = [np.stack([x, *train[rows]]) for x, rows in zip(samples[first], nearest, strict=False)]
    save_neighbours(np.stack(shown), train, card["levels"], configuration.neighbours)
    write_text(configuration.record, json.dumps(record, indent=2) + "\n")
    print(
        f"{configuration.name}: {judge['metric']} to held-out {metrics['held_out']['mean']:.3f}, "
        f"to train {metrics['train']['mean']:.3f}, floor {floor:.3f}"
    )
    for warning in record["warnings"]:
        print(f"{configuration.name}: {warning}")


if __name__ == "__main__":
    run(main)
