"""What a configuration will cost, said before it begins: network calls, and minutes where a rate is known."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoremodel.processes.ncsn import ncsnv2_levels
from tasks.files.layout import LEDGER

__all__ = [
    "NOMINAL",
    "SHOWN",
    "Cost",
    "TrainingCost",
    "guessed_levels",
    "lines",
    "measured_rates",
    "measured_trainings",
    "rate_of",
]

Parts = tuple[str, str, str]
"""Data set, model and sampler; of trainings the sampler is empty."""
NOMINAL = 100.0
"""TFLOP/s by which hours are said of a training that was not measured: a third of an A100's in bfloat16."""

SHOWN = 8
"""Lines of one kind, after which the number of those left is said."""
_LOUD_SHARE, _LOUD_SECONDS = 10, 3600  # of the median of the others; by itself
_CHEAP_SECONDS, _CHEAP_CALLS = 60, 10**7  # below which ten times the others is nothing to speak of


@dataclass(frozen=True)
class Cost:
    """What drawing the samples of one sampler from one model takes.

    Args:
        dataset: name of the data set.
        model: name of the model.
        sampler: name of the sampler.
        each: network calls for a sample; None if they follow from the samples.
        samples: number of samples, of all training and sampling seeds.
        rate: seconds for a network call of one sample, None if none is known here.
        about: whether the calls are guessed, as those of a ladder that follows from the data.
    """

    dataset: str
    model: str
    sampler: str
    each: int | None
    samples: int
    rate: float | None = None
    about: bool = False

    @property
    def calls(self) -> int:
        """Network calls of all samples; 0 if they are not known."""
        return (self.each or 0) * self.samples

    @property
    def seconds(self) -> float | None:
        """Seconds on this machine, None if they are not known."""
        return None if self.rate is None or self.each is None else self.calls * self.rate

    def __str__(self) -> str:
        """Say it in one line."""
        who = f"{self.dataset}: {self.model} × {self.sampler}"
        if self.each is None:
            what = "levels, which follow from the data," if self.about else "tolerances"
            return f"{who}: as many network calls as its {what} take, for {self.samples:,} samples"
        calls = f"{'about ' * self.about}{self.each:,} network calls a sample"
        said = f"{who}: {calls}, {_short(self.calls)} for {self.samples:,} samples"
        return (
            said if self.seconds is None else f"{said}, about {_time(self.seconds)} on this machine"
        )


@dataclass(frozen=True)
class TrainingCost:
    """What the trainings of one model on one data set take, estimated.

    Args:
        dataset: name of the data set.
        model: name of the model.
        trainings: number of trainings, one for each seed.
        parameters: number of the network's weights.
        images: data points that one training is shown.
        flops: floating-point operations of one training: two for each multiplication of the network, and
            the way back twice the way there.
        memory: bytes of each process's memory.
        disk: bytes of weights and samples that are left, of all trainings.
        checkpoints: bytes of one training's checkpoints.
        rate: seconds for a data point on this machine, None if none is known.
        nominal: TFLOP/s by which hours are said otherwise.
    """

    dataset: str
    model: str
    trainings: int
    parameters: int
    images: int
    flops: float
    memory: int
    disk: int
    checkpoints: int
    rate: float | None = None
    nominal: float = NOMINAL

    def __str__(self) -> str:
        """Say it in one line."""
        several = "" if self.trainings == 1 else f"{self.trainings} trainings of "
        times = [f"{_time(self.flops / (self.nominal * 1e12))} at {self.nominal:g} TFLOP/s"]
        if self.rate is not None:
            here = self.rate * self.images
            times = [f"{_time(here)} on this machine", *(times if here > _LOUD_SECONDS else [])]
        flops = f"{self.flops:.1e}".replace("e+", "e")
        return (
            f"{self.dataset}: {self.model}: {several}{self.parameters / 1e6:.2f} M parameters, "
            f"{_short(self.images)} images, an estimated {flops} FLOP, about {' or '.join(times)}; memory "
            f"{_short(self.memory)}B; disk {_short(self.disk)}B, and {_short(self.checkpoints)}B of "
            "checkpoints meanwhile"
        )


def lines(costs: list[Cost]) -> Iterator[tuple[bool, str]]:
    """Yield what is to be said of some costs, the dearest first, and of each whether it is loud.

    Loud is what takes more than an hour, or more than ten times the median of the others, if that is
    more than a minute.

    Args:
        costs: one for each combination.

    Yields:
        Whether to warn, and the line; after eight the number of those that are left.
    """
    by_cost = sorted(costs, key=lambda one: one.calls, reverse=True)
    whys = [_loud(one, [other for other in costs if other is not one]) for one in by_cost]
    shown = max(SHOWN, sum(map(bool, whys)))
    ordered = sorted(zip(whys, by_cost, strict=True), key=lambda pair: not pair[0])
    for why, one in ordered[:shown]:
        yield bool(why), f"{one}: {why}" if why else str(one)
    if len(costs) > shown:
        yield False, f"and {len(costs) - shown} more"


def _loud(one: Cost, others: list[Cost]) -> str:
    """Return why a cost is worth a warning, nothing if it is not."""
    if one.seconds is not None and one.seconds > _LOUD_SECONDS:
        return "more than an hour"
    usual = [other.calls for other in others if other.each is not None]
    if not usual or one.calls <= _LOUD_SHARE * statistics.median(usual):
        return ""
    cheap = one.calls <= _CHEAP_CALLS if one.seconds is None else one.seconds <= _CHEAP_SECONDS
    return "" if cheap else f"{one.calls / statistics.median(usual):.3g} times the others' median"


def measured_rates(device: str, ledger: Path = LEDGER) -> dict[Parts, float]:
    """Return the seconds that a network call of one sample took on this device, as measured last.

    Args:
        device: what people call the device, as the ledger has it.
        ledger: the ledger's folder.

    Returns:
        (data set, model, sampler) → seconds. Rows that cannot be read are passed over: the report
        names them.
    """

    def rate(row: Any, *parts: str) -> tuple[Parts, float]:
        dataset, model, _, sampler = parts
        per_1000 = float(row["seconds"]["sample"]["seconds_per_1000"])
        return (dataset, model, sampler), per_1000 / 1000 / int(row["values"]["nfe"])

    return _newest(device, ledger, "sample", rate)


def measured_trainings(device: str, ledger: Path = LEDGER) -> dict[Parts, float]:
    """Return the seconds that a training took for a data point on this device, as measured last.

    Args:
        device: what people call the device, as the ledger has it.
        ledger: the ledger's folder.

    Returns:
        (data set, model, "") → seconds. Rows that cannot be read are passed over.
    """

    def rate(row: Any, *parts: str) -> tuple[Parts, float]:
        dataset, model, seed, _ = parts
        params = row["inputs"]["params"]
        said = params.get("resolved", {}) | params[f"train@{dataset}-{model}-{seed}"]
        training = said[f"models.{model}"]["training"]
        images = int(training["steps"]) * int(training["batch_size"])
        return (dataset, model, ""), float(row["seconds"]["train"]["seconds"]) / images

    return _newest(device, ledger, "train", rate)


def _newest(
    device: str, ledger: Path, stage: str, rate: Callable[..., tuple[Parts, float]]
) -> dict[Parts, float]:
    """Return the rates of the newest rows in which a stage ran on a device."""
    found: dict[Parts, tuple[str, float]] = {}
    for path in ledger.glob("[!.]*.json"):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["seconds"][stage]["device"] != device:
                continue
            key, seconds = rate(row, *row["configuration"].split("-"))
            measured = str(row.get("recorded") or ""), seconds
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            continue
        if math.isfinite(seconds):
            found[key] = max(found.get(key, measured), measured)
    return {key: seconds for key, (_, seconds) in found.items()}


def rate_of(
    own: Parts, rates: Mapping[Parts, float], products: Callable[[str, str], int | None]
) -> float | None:
    """Return the seconds that a network call of one sample will take.

    Args:
        own: data set, model and sampler.
        rates: what `measured_rates` returned.
        products: gives the multiplications in a (data set, model)'s network, None if not known.

    Returns:
        Its own rate; else the median of its model's with other samplers; else of another model's, of the
        same data if there is one, by how much more the network multiplies; None if there is none.
    """
    if own in rates:
        return rates[own]
    by_model: dict[tuple[str, str], list[float]] = {}
    for (dataset, model, _), rate in rates.items():
        by_model.setdefault((dataset, model), []).append(rate)
    if own[:2] in by_model:
        return statistics.median(by_model[own[:2]])
    mine = products(*own[:2])
    for other in sorted(by_model, key=lambda key: (key[0] != own[0], key)):
        theirs = products(*other)
        if mine and theirs:
            return statistics.median(by_model[other]) * mine / theirs
    return None


def guessed_levels(sde: Mapping[str, Any], card: Mapping[str, Any]) -> int:
    """Return about how many levels NCSNv2's rules will give some data, whose distances are not known yet.

    The largest distance between two points is taken for one and a half times that of two points of a
    Gaussian with the data's standard deviation; the number of levels goes with its logarithm.

    Args:
        sde: a process of the kind `ncsn`, some of whose parameters are None.
        card: the data's card.

    Returns:
        The number of levels.
    """
    dimension = math.prod(card["shape"])
    largest = sde["sigma_max"] or 1.5 * math.sqrt(2 * dimension) * card["std"]
    largest = max(largest, 2 * sde["sigma_min"])
    return int(sde["levels"] or ncsnv2_levels(sde["sigma_min"], largest, dimension))


def _short(count: int) -> str:
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{float(f'{count / size:.3g}'):g} {unit}"
    return str(count)


def _time(seconds: float) -> str:
    for size, unit in ((172_800, "days"), (5400, "h"), (90, "min")):
        if seconds >= size:
            each = {"days": 86_400, "h": 3600, "min": 60}[unit]
            return f"{seconds / each:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"
