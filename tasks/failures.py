"""Study failures: what plain score matching and Langevin dynamics cannot do, and what noise mends.

Three failures (Song and Ermon 2019, arXiv:1907.05600, section 3), each on data whose score is known,
each measured for a score that is matched on the data themselves ("none"), on data with one noise
level ("one"), and on data with many ("many"):

    manifold  images of 8×8 pixels that fill 9 dimensions of 64: off them there is no score
    regions   a mixture in the plane: far from its modes there are no data to learn from
    weights   the same mixture: Langevin does not find the modes' weights
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scoremodel.denoiser import Denoiser
from scoremodel.io.files import write_text
from scoremodel.networks.mlp import MLP
from scoremodel.oracles import Gaussian, GaussianMixture
from scoremodel.parametrisation import convert
from scoremodel.processes.ve import VE
from scoremodel.rng import derive_seed, generator
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.langevin_dynamics import unadjusted_langevin
from scoremodel.samplers.sampling import sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.loss import implicit_score_matching, sliced_score_matching
from scoremodel.training.schedules import schedule_factor
from scoremodel.training.times.base import Times
from scoremodel.training.times.log_normal import LogNormal
from scoremodel.training.times.single import Single
from tasks.files.arrays import write_arrays
from tasks.files.device import Machine, environment, set_up_device
from tasks.files.layout import STUDIES, Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.results.spread import record_text, rounded, spread

__all__ = ["main"]

_WIDTH, _DEPTH = 96, 3
_LEARNING_RATE = 1e-3
_SDE = VE(0.02, 20.0)
_MIXTURE = GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.8, 0.2])
_WEIGHT = 0.8
_POINTS = 10_000
_FILLED = 3  # pixels of the small images, in each direction
_SIDE = 8
_SQUARE = 1.2  # half a side of the square in which regions are measured and chains start
_CURVE = 25  # points of a loss curve

ScoreAt = Callable[[Tensor, float], Tensor]
"""A learned score: (x, noise ratio r) → ∇ ln p_r(x)."""


@dataclass(frozen=True)
class _How:
    """What params.yaml says, `tasks.params.schema.Failures`."""

    steps: int
    batch_size: int
    seeds: list[int]
    ratio: float
    samples: int


@dataclass(frozen=True)
class _Learned:
    score: ScoreAt
    losses: list[float]
    denoiser: Denoiser | None = None


def _plain(data: Tensor, how: _How, seed: int) -> _Learned:
    """Match the score of the data themselves: implicitly in the plane, by slices beyond."""
    features = data.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = MLP(features, _WIDTH, _DEPTH)
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    losses: list[float] = []
    recent: list[float] = []
    for step in range(how.steps):
        draw = generator(seed, "step", step)
        x = data[torch.randint(len(data), (how.batch_size,), generator=draw)]
        none = torch.zeros(how.batch_size)

        def score(x: Tensor, none: Tensor = none) -> Tensor:
            out: Tensor = network(x, none)
            return out

        if features == 2:
            loss = implicit_score_matching(score, x).mean()
        else:
            probe = 2 * torch.randint(2, (1, *x.shape), generator=draw).float() - 1
            loss = sliced_score_matching(score, x, probe).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * schedule_factor("cosine", step, how.steps, 50)
        optimiser.step()
        recent.append(float(loss.detach()))
        if (step + 1) % max(1, how.steps // _CURVE) == 0:
            losses.append(float(np.mean(recent)) / features)
            recent.clear()

    def learned(x: Tensor, _: float) -> Tensor:
        with torch.no_grad():
            out: Tensor = network(x, torch.zeros(len(x)))
        return out

    return _Learned(learned, losses)


def _denoising(data: Tensor, times: Times, how: _How, seed: int) -> _Learned:
    """Match the score of noisy data, at one noise level or at many."""
    mean = data.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        std = float((data - mean).square().mean().sqrt())
        denoiser = Denoiser(
            {"kind": "mlp", "width": _WIDTH, "depth": _DEPTH},
            _SDE,
            data.shape[1:],
            mean.tolist(),
            std,
        )
    config = TrainingConfig(
        steps=how.steps,
        batch_size=how.batch_size,
        learning_rate=_LEARNING_RATE,
        schedule="cosine",
        warmup_steps=50,
        weighting="edm",
        times=times,
        log_every=max(1, how.steps // _CURVE),
    )
    trained = train(denoiser, data, config, seed)

    def learned(x: Tensor, ratio: float) -> Tensor:
        with torch.no_grad():
            return trained.denoiser.score(x, _time(ratio, len(x)))

    return _Learned(learned, [point["loss"] for point in trained.curves], trained.denoiser)


def _time(ratio: float, count: int) -> Tensor:
    return _SDE.t_of_ratio(torch.tensor(ratio)).clamp(_SDE.t_min, 1).expand(count)


def _kinds(data: Tensor, how: _How, seed: int) -> dict[str, _Learned]:
    return {
        "none": _plain(data, how, seed),
        "one": _denoising(data, Single(how.ratio), how, seed),
        "many": _denoising(data, LogNormal(-1.2, 1.6), how, seed),
    }


def _off(score: Tensor, true: Tensor) -> float:
    """Return the relative error sqrt(E |s − s*|² / E |s*|²)."""
    return float(((score - true).square().sum() / true.square().sum()).sqrt())


def _images(count: int, seed: int) -> tuple[Tensor, Gaussian]:
    """Return smooth 8×8 images: 3×3 Gaussian pixels, enlarged; and their exact density."""
    units = torch.eye(_FILLED**2, dtype=torch.float64).view(-1, 1, _FILLED, _FILLED)
    enlarged = functional.interpolate(units, size=_SIDE, mode="bilinear", align_corners=True)
    rows = enlarged.flatten(1) / 2
    small = torch.randn(count, _FILLED**2, dtype=torch.float64, generator=generator(seed, "data"))
    covariance = rows.T @ rows
    return small @ rows, Gaussian(
        torch.zeros(_SIDE**2, dtype=torch.float64),
        covariance + 1e-12 * torch.eye(_SIDE**2, dtype=torch.float64),
    )


def _noisy(x: Tensor, ratio: float, seed: int) -> Tensor:
    return x + ratio * torch.randn(x.shape, dtype=x.dtype, generator=generator(seed, "noise"))


def _manifold(how: _How, seed: int) -> tuple[dict[str, dict[str, float]], Any]:
    """Return each kind's error on data with noise of each size, and the training curves."""
    data, density = _images(_POINTS, seed)
    kinds = _kinds(data.float(), how, seed)
    fresh, _ = _images(how.samples, seed + 1)
    found: dict[str, dict[str, float]] = {}
    for name, learned in kinds.items():
        found[name] = {}
        for ratio in (how.ratio, 0.5):
            x = _noisy(fresh, ratio, seed)
            t = _time(ratio, len(x)).double()
            true = convert(density.denoised(x, t, _SDE), x, t, _SDE, "denoised", "score")
            found[name][f"error at r = {ratio:g}"] = _off(learned.score(x.float(), ratio), true)
        # how much the loss still falls at the end, against what it fell at all
        first, half, last = learned.losses[0], learned.losses[len(learned.losses) // 2], 0.0
        last = learned.losses[-1]
        found[name]["fall in the second half"] = (half - last) / max(first - last, 1e-12)
    return found, {name: learned.losses for name, learned in kinds.items()}


def _plane(seed: int) -> Tensor:
    return _MIXTURE.sample(_POINTS, generator(seed, "data"))[0].float()


def _regions(
    kinds: dict[str, _Learned], how: _How, seed: int
) -> tuple[dict[str, dict[str, float]], Any]:
    """Return each kind's error where data are dense and where there are none, and along a line."""
    draw = generator(seed, "places")
    places = (2 * torch.rand(how.samples, 2, generator=draw, dtype=torch.float64) - 1) * _SQUARE
    line = torch.linspace(-_SQUARE, _SQUARE, 97, dtype=torch.float64)[:, None].expand(-1, 2)
    found: dict[str, dict[str, float]] = {}
    profiles = {}
    for name, learned in kinds.items():
        found[name] = {}
        levels = {"none": (0.0,), "one": (how.ratio,), "many": (how.ratio, 1.0)}[name]
        for ratio in levels:
            t = _time(max(ratio, _SDE.sigma_min), len(places)).double()
            if ratio == 0.0:  # the data's own density, which has every place in it, but few data
                nothing = VE(1e-4, 1.0)
                zero = torch.zeros(len(places), dtype=torch.float64)
                true = _MIXTURE.score(places, zero, nothing)
                log_prob = _MIXTURE.log_prob(places, zero, nothing)
            else:
                true = _MIXTURE.score(places, t, _SDE)
                log_prob = _MIXTURE.log_prob(places, t, _SDE)
            # dense: where one of the data is likely to lie within a tenth of a unit
            dense = log_prob.exp() * _POINTS * np.pi * 0.1**2 > 1
            guess = learned.score(places.float(), ratio)
            for where, rows in (("dense", dense), ("empty", ~dense)):
                if rows.any():
                    found[name][f"{where} at r = {ratio:g}"] = _off(guess[rows], true[rows])
        if name != "one":
            ratio = levels[-1]
            t = _time(max(ratio, 1e-3), len(line)).double()
            if ratio == 0.0:
                exact = _MIXTURE.score(
                    line, torch.zeros(len(line), dtype=torch.float64), VE(1e-4, 1.0)
                )
            else:
                exact = _MIXTURE.score(line, t, _SDE)
            profiles[name] = (line[:, 0], exact[:, 0], learned.score(line.float(), ratio)[:, 0])
    return found, profiles


def _weights(kinds: dict[str, _Learned], how: _How, seed: int) -> dict[str, dict[str, float]]:
    """Return the share of samples in the heavier mode, of which the truth is 0.8."""
    draw = generator(seed, "starts")
    start = (2 * torch.rand(how.samples, 2, generator=draw) - 1) * _SQUARE

    def share(x: Tensor) -> float:
        return float((x.sum(1) < 0).double().mean())

    def walk(score: ScoreAt, ratio: float) -> Tensor:
        step_size = 0.1 * 0.1**2
        return unadjusted_langevin(lambda x: score(x, ratio), start, step_size, 300, seed)

    many = kinds["many"].denoiser
    assert many is not None
    exact = unadjusted_langevin(
        lambda x: _MIXTURE.score(x, torch.zeros(len(x), dtype=torch.float64), VE(1e-4, 1.0)),
        start.double(),
        0.1 * 0.1**2,
        300,
        seed,
    )
    return {
        "exact score": {"share by Langevin": share(exact)},
        "none": {"share by Langevin": share(walk(kinds["none"].score, 0.0))},
        "one": {"share by Langevin": share(walk(kinds["one"].score, how.ratio))},
        "many": {
            "share by the reverse": share(
                sample(many, Heun(25), how.samples, seed, batch_size=how.samples).x
            )
        },
    }


def _summed(runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    return {
        kind: {name: spread([one[kind][name] for one in runs]) for name in values}
        for kind, values in runs[0].items()
    }


def main(_: Configuration) -> None:
    """Write what was measured over the seeds, and what there is to see of the first."""
    how = _How(**resolved("studies/failures"))
    machine = replace(Machine.read(), device="cpu")
    device = set_up_device(machine)
    manifolds, regions, weights = [], [], []
    shown: Any = None
    for seed in how.seeds:
        found, losses = _manifold(how, seed)
        manifolds.append(found)
        kinds = _kinds(_plane(seed), how, seed)
        found, profiles = _regions(kinds, how, seed)
        regions.append(found)
        weights.append(_weights(kinds, how, seed))
        shown = shown or (losses, profiles)
        print(f"failures: seed {seed} done", flush=True)
    record = {
        "seeds": how.seeds,
        "weight": _WEIGHT,
        "weight_std_error": rounded((_WEIGHT * (1 - _WEIGHT) / how.samples) ** 0.5),
        "manifold": _summed(manifolds),
        "regions": _summed(regions),
        "weights": _summed(weights),
        "environment": environment(device, machine),
    }
    losses, profiles = shown
    about = {"picture": "panels", "panels": _panels(losses, profiles, record)}
    write_arrays(Configuration("failures").shown, {}, about)
    write_text(STUDIES / "failures.json", record_text(record))


def _panels(losses: Any, profiles: Any, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return three panels, one a failure, as `tasks.report.pictures.panels` draws them."""
    curves: dict[str, Any] = {}
    for name, values in losses.items():
        shifted = [rounded(value - values[0]) for value in values]
        curves[name] = (np.linspace(0, 1, len(values)).round(6).tolist(), shifted)
    lines, dashed = {}, {}
    for name, (x, exact, guess) in profiles.items():
        label = {"none": "r = 0", "many": "r = 1"}[name]
        lines[f"learned, {label}"] = (x.tolist(), [rounded(float(one)) for one in guess])
        dashed[f"true, {label}"] = (x.tolist(), [rounded(float(one)) for one in exact])
    bars = {}
    for kind, values in record["weights"].items():
        (value,) = values.values()
        bars[kind] = (value["mean"], value["std"])
    return [
        {
            "title": "on a manifold",
            "x": "training",
            "y": "loss / dimension, at most 0 at the start",
            "lines": curves,
        },
        {
            "title": "where there are no data",
            "x": "along the diagonal",
            "y": "score's first component",
            "lines": lines,
            "dashed": dashed,
            "limits": (-40.0, 40.0),
        },
        {
            "title": "weights",
            "x": "",
            "y": "share in the mode of weight 0.8",
            "bars": bars,
            "level": _WEIGHT,
        },
    ]


if __name__ == "__main__":
    run_stage(main)
