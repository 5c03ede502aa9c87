"""Stage evaluate: features → one deterministic record of a configuration's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits
from typing_extensions import TypedDict

from scoremodel.evaluation.distance import check_features, frechet_distance, moments
from scoremodel.evaluation.memorisation import nearest_training
from scoremodel.evaluation.resampling import held_out_replicates
from scoremodel.evaluation.scores import Scores, score
from scoremodel.io.files import write_text
from tasks.files.arrays import read_arrays, read_card, read_rows, shown, write_arrays
from tasks.files.documents import read_json
from tasks.files.layout import Configuration
from tasks.files.machine import cpu_name
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.results.records import Spread
from tasks.results.scoring import reference, spreads
from tasks.results.spread import record_text, rounded, spread

__all__ = ["main"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "clean-fid")
_REPLICATES = 200  # of the held-out rows
_SHOWN = 10  # samples in the picture, and columns of it: the sample and its neighbours


_NEEDS = (
    "labels",
    "agreement",
    "ema_half_life",
    "ema_std",
    "nfe",
    "model",
    "environment",
    "features_environment",
)
"""What the file of features says of the samples."""


class _Floor(TypedDict):
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    count: int


class _Baselines(TypedDict):
    floor: _Floor
    real: dict[str, Spread]
    gaussian: dict[str, Spread]
    environment: str


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


def _panel(files: Configuration) -> dict[str, dict[str, Any]]:
    """Return the name of each other judge's distance → its spread over the sampling seeds."""
    held_out, info = read_arrays(Configuration(files.dataset).panel_features, ("metrics",))
    found = {}
    for name, several in read_arrays(files.panel_features)[0].items():
        fixed = moments(held_out[name], "the held-out features")
        found[info["metrics"][name]] = spread([frechet_distance(rows, fixed) for rows in several])
    return found


def main(files: Configuration) -> None:
    """Write the record, and samples beside their nearest training data, to be shown."""
    how = resolved("judge/metrics")
    # What is not known of samples from elsewhere is null.
    chosen = {} if files.external else resolved(f"samplers/{files.sampler}")
    card = read_card(files.card)
    baselines = read_json(files.baselines, _Baselines)
    fake, info = read_arrays(files.features, _NEEDS)
    for name, rows in fake.items():
        check_features(rows, f"{files.features}: {name}")
    # One thread, whatever the machine has: the order of a sum shows in a distance's last digits.
    with threadpool_limits(1):
        real, judge = reference(files, how)
        asked = info["labels"] or {}
        scores = [
            score(features, real, None if name not in asked else np.array(asked[name]))
            for name, features in fake.items()
        ]
        replicates = [held_out_replicates(rows, real, _REPLICATES) for rows in fake.values()]
        few = baselines["floor"]["count"]
        like_floor = [frechet_distance(rows[:few], real.held_out_moments) for rows in fake.values()]
        panel = _panel(files)
        first = next(iter(fake))
        _, nearest = nearest_training(fake[first][:_SHOWN], real.train, _SHOWN - 1)
    agreement = info["agreement"]
    metrics = spreads(scores)
    floor = baselines["floor"]["value"]
    record = {
        "dataset": files.dataset,
        "data_sha256": card["sha256"],
        "levels": card["levels"],
        "model": files.model,
        "train_seed": files.train_seed,
        "sampler": files.sampler,
        "sampler_kind": chosen.get("kind"),
        "steps": chosen.get("steps"),
        "guidance": chosen.get("guidance"),
        "autoguide": chosen.get("autoguide"),
        "ema_half_life": info["ema_half_life"],
        "ema_std": info["ema_std"],
        "nfe": info["nfe"],
        "count": how["count"],
        "sampling_seeds": list(range(len(fake))) if files.external else how["sampling_seeds"],
        "metric": judge["metric"],
        "margin": how["margin"],
        "width": real.train.shape[1],
        **metrics,
        # Of each set of held-out rows the mean over the sampling seeds: replicates pair up.
        "resampled": {"held_out": [rounded(value) for value in np.mean(replicates, axis=0)]},
        "ratio_to_floor": rounded(float(np.mean(like_floor)) / floor),
        "panel": panel,
        "agreement": None if agreement is None else spread(list(agreement.values())),
        "memorised": any(one.memorised for one in scores),
        "classes": _classes(scores, list(card["class_counts"] or ())),
        **{name: baselines[name] for name in ("floor", "real", "gaussian")},
        "warnings": [
            *judge["warnings"],
            *real.warnings(how["count"], few),
            *info.get("external", {}).get("said", ()),
        ],
        "parameters": info["model"]["parameters"],
        "train_images": info["model"]["train_images"],
        "environment": {
            "train": info["model"]["environment"],
            "sample": info["environment"],
            "extractor": judge["extractor"],
            "reference": judge["environment"],
            "features": info["features_environment"],
            "baselines": baselines["environment"],
            "evaluate": ", ".join([cpu_name(), *(f"{name} {version(name)}" for name in _PACKAGES)]),
        },
        **({"external": info["external"]} if files.external else {}),
    }
    samples, _ = read_arrays(files.samples)
    train = read_rows(files.arrays, card)["train"]
    groups = [np.stack([x, *train[rows]]) for x, rows in zip(samples[first], nearest, strict=False)]
    pictured = {"groups": np.stack(groups)}
    if card["levels"] is None:
        pictured["ground"] = shown(train)
    about = {"picture": "neighbours", "levels": card["levels"]}
    write_arrays(files.shown_neighbours, pictured, about)
    write_text(files.record, record_text(record))
    print(
        f"{files.name}: {judge['metric']} to held-out {metrics['held_out']['mean']:.3f}, "
        f"to train {metrics['train']['mean']:.3f}, floor {floor:.4g} of N = {few}"
    )
    for warning in record["warnings"]:
        print(f"{files.name}: {warning}")


if __name__ == "__main__":
    run_stage(main, "dataset", "model", "train_seed", "sampler")
