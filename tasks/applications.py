"""Stage applications: one thing more that a trained model can do → numbers, and arrays to be shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel import inverse
from scoremodel.data.scale import bin_width, quantise, to_unit
from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Chunks
from scoremodel.io.denoisers import load
from scoremodel.io.files import write_text
from scoremodel.latents import decode, encode, interpolate
from scoremodel.likelihood import bits_per_dim, dequantise, log_likelihood
from scoremodel.oracles import Gaussian
from scoremodel.processes.sde import SDE
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from tasks.files.arrays import read_card, read_rows, write_arrays
from tasks.files.device import Machine, environment, set_up_device
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.ranks import with_helpers
from tasks.files.resolved import resolved
from tasks.files.stage import code_of, run_stage
from tasks.files.state import state_folder, stop_on_signals
from tasks.params.errors import ParamsError
from tasks.results.spread import record_text, rounded

__all__ = ["build_operator", "main"]

_PART = 128  # images whose likelihood is computed together
_SHOWN = 10  # images in a picture
_RATIOS = (1.0, 0.3, 0.1)  # noise levels at which a field is drawn
_SPAN = 1.6  # of its axes
_ARROWS = 19
_POINTS = 4000

Found = tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]]
"""Numbers; arrays to be shown, if any, and by which picture."""


@dataclass(frozen=True)
class _Asked:
    """A model and its data, and what it is asked for."""

    denoiser: Denoiser
    card: Mapping[str, Any]
    train: NDArray[Any]
    held_out: NDArray[Any]
    how: Mapping[str, Any]
    seed: int
    chunks: Chunks

    @property
    def levels(self) -> int | None:
        return self.denoiser.levels

    @property
    def name(self) -> str:
        return str(self.card["name"])

    @property
    def device(self) -> torch.device:
        return self.denoiser.data_mean.device

    def gaussian(self) -> Gaussian:
        return _gaussian(to_unit(torch.from_numpy(np.array(self.train)), self.levels), self.levels)


def _gaussian(train: Tensor, levels: int | None) -> Gaussian:
    """Return the Gaussian with the dequantised training data's mean and covariance."""
    rows = train.flatten(1).double()
    covariance = torch.cov(rows.T)
    # What spreading each level over its bin adds; without it some pixels never vary.
    least = bin_width(levels) ** 2 / 12 if levels else 1e-6
    return Gaussian(rows.mean(0), covariance + least * torch.eye(rows.shape[1], dtype=rows.dtype))


def _refused(application: str, asked: _Asked, why: str) -> ParamsError:
    return ParamsError(
        f"params.yaml: active.applications: {application!r} is not allowed for {asked.name!r}, {why}"
    )


def _images(asked: _Asked) -> Tensor:
    """Return the held-out images whose likelihood is asked for, dequantised."""
    if asked.levels is None:
        raise _refused("likelihood", asked, "whose card declares no grey levels")
    pixels = torch.from_numpy(np.array(asked.held_out[: asked.how["count"]]))
    return dequantise(pixels, asked.levels, asked.seed)


def _by_part(asked: _Asked, x: Tensor) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return what computes the log-likelihoods of each part of the images, by the part's name."""
    options = {key: asked.how[key] for key in ("probes", "rtol", "atol")}

    def compute(first: int) -> dict[str, Tensor]:
        part = x[first : first + _PART].to(asked.device)
        found = log_likelihood(asked.denoiser, part, seed=asked.seed, start=first, **options)
        return {
            "log_prob": found.log_prob,
            "std_error": found.std_error,
            "nfe": torch.tensor(found.nfe),
        }

    return {f"images-{first:010}": partial(compute, first) for first in range(0, len(x), _PART)}


def _likelihood(asked: _Asked) -> Found:
    """Return bits per dimension of held-out images, the model's and the Gaussian's."""
    how, levels = asked.how, asked.levels
    x = _images(asked)
    size = x[0].numel()
    parts = _by_part(asked, x)
    asked.chunks.fill(parts)
    found = [asked.chunks.get(name, compute) for name, compute in parts.items()]
    bits = bits_per_dim(torch.cat([one["log_prob"] for one in found]), size, levels)
    simple = bits_per_dim(asked.gaussian().log_prob(x.flatten(1).double()), size, levels)
    errors = torch.cat([one["std_error"] for one in found])
    probes = float(errors.square().mean().sqrt()) / (size * math.log(2))
    root = math.sqrt(len(x))
    values = {
        "unit": "bits per dimension",
        "bits_per_dim": rounded(float(bits.mean())),
        "std_error": rounded(float(bits.std()) / root),
        "std_error_of_probes": rounded(probes / root),
        "gaussian": rounded(float(simple.mean())),
        "gaussian_std_error": rounded(float(simple.std()) / root),
        "count": len(x),
        "probes": how["probes"],
        "nfe": max(int(one["nfe"]) for one in found),
        "dequantised_training": bool(asked.denoiser.info["dequantised"]),
        # Of the first held-out images, in their order: two models compare in pairs of images.
        "by_image": [rounded(value) for value in bits.tolist()],
    }
    if not values["dequantised_training"]:
        values["warning"] = (
            "bits/dim of a model that was trained on the grey levels themselves, between which it "
            "has little density: training.dequantise: true is for this"
        )
    return values, {}, {}


def build_operator(
    block: Mapping[str, Any], shape: Sequence[int], seed: int
) -> tuple[inverse.Operator, Tensor]:
    """Return the operator that a block describes, and which pixels it hides.

    Args:
        block: `applications.inverse.operator`.
        shape: (C, H, W) of the images.
        seed: of a random mask, the same for all images and channels.

    Returns:
        The operator, and booleans with shape (C, H, W); of averages and blurs every pixel is hidden.

    Raises:
        ParamsError: if the operator does not fit the images.
    """
    height, width = shape[1:]
    if block["kind"] == "mask":
        order = torch.arange(height * width)
        if block["hidden"] == "random_half":
            draw = torch.Generator().manual_seed(seed)
            order = torch.randperm(height * width, generator=draw)
        hidden = (order >= height * width // 2).view(1, height, width).expand(*shape)
        return inverse.mask(~hidden), hidden
    hidden = torch.ones(*shape, dtype=torch.bool)
    if block["kind"] == "blur":
        return inverse.blur(block["std"]), hidden
    factor = block["factor"]
    if height % factor or width % factor:
        raise ParamsError(
            f"params.yaml: applications.inverse.operator.factor: {factor} is not allowed for "
            f"images of {height}×{width}, allowed: a divisor of both"
        )
    return inverse.downsample(factor), hidden


def _inverse(asked: _Asked) -> Found:
    """Return errors on what was hidden, the model's and two baselines', and a picture's columns."""
    denoiser, how, seed = asked.denoiser, asked.how, asked.seed
    if len(denoiser.shape) != 3:
        raise _refused("inverse", asked, "which has no images")
    gaussian = asked.gaussian()
    x = to_unit(torch.from_numpy(np.array(asked.held_out[: how["count"]])), asked.levels)
    operator, hidden = build_operator(how["operator"], denoiser.shape, seed)
    noise = torch.randn(
        operator(x).shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype
    )
    y = operator(x) + how["noise_std"] * noise
    if how["operator"]["kind"] == "mask":
        y = operator(y)  # no noise where nothing was measured
    drawn = torch.stack(
        [
            inverse.restore(
                denoiser,
                operator,
                y.to(asked.device),
                how["noise_std"],
                Heun(how["steps"]),
                seed,
                method=how["method"],
                iterations=how["iterations"],
                start=index * len(x),
            ).cpu()
            for index in range(how["draws"])
        ]
    )
    units = torch.eye(x[0].numel(), dtype=torch.float64).view(-1, *denoiser.shape)
    matrix = operator(units).flatten(1).T
    seen = matrix.abs().sum(1) > 0
    linear, _ = gaussian.posterior(matrix[seen], y.flatten(1).double()[:, seen], how["noise_std"])
    linear = linear.view(x.shape)
    mean = gaussian.mean.view(1, *denoiser.shape).expand(x.shape)
    of_draws = drawn.double().mean(0)

    def squared(guess: Tensor) -> Tensor:
        return (guess.double() - x.double())[:, hidden].square().mean(1)

    def error(guess: Tensor) -> float:
        return rounded(float(squared(guess).mean().sqrt()))

    gain = squared(linear) - squared(of_draws)
    found = {
        "operator": how["operator"],
        "method": how["method"],
        "noise_std": how["noise_std"],
        "count": len(x),
        "draws": how["draws"],
        "rmse": error(of_draws),
        "rmse_of_one_draw": rounded(
            float(torch.stack([squared(one).mean() for one in drawn]).mean().sqrt())
        ),
        "rmse_of_linear": error(linear),
        "rmse_of_mean": error(mean),
        # of the squared error, over images: positive where the model is the better one
        "gain_over_linear": rounded(float(gain.mean())),
        "gain_std_error": rounded(float(gain.std()) / math.sqrt(len(x))),
    }
    back = y if y.shape == x.shape else torch.nn.functional.interpolate(y, size=x.shape[-2:])
    shown = (x, back, linear, of_draws, *drawn[:3])
    columns = [quantise(column[:_SHOWN].float(), denoiser.levels).numpy() for column in shown]
    about = {"picture": "columns", "levels": denoiser.levels}
    about["caption"] = "truth, what was known, linear estimate, mean of the draws, three draws"
    return found, {"columns": np.stack(columns)}, about


def _latents(asked: _Asked) -> Found:
    """Return the error of going to latents and back, and what lies between pairs of latents."""
    denoiser, how, seed, device = asked.denoiser, asked.how, asked.seed, asked.device
    process = denoiser.process
    to_noise = partial(encode, denoiser, rtol=how["rtol"], atol=how["atol"])
    to_data = partial(decode, denoiser, rtol=how["rtol"], atol=how["atol"])
    pixels = torch.from_numpy(np.array(asked.held_out[: how["count"]]))
    if denoiser.info["dequantised"] and denoiser.levels is not None:
        x = dequantise(pixels, denoiser.levels, seed)
    else:
        x = to_unit(pixels, denoiser.levels)
    # As the flow has them at t_min: without its noise they would come out too close to the mean.
    first = torch.full((len(x),), process.t_min)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    x = process.perturb(x, first, noise).to(device)
    z = to_noise(x)
    back = to_data(z)
    centre = denoiser.data_mean if process.prior_keeps_mean else 0.0
    standard = ((z - centre) / process.prior_std()).cpu()
    pairs = min(_SHOWN, len(x) // 2)
    path = interpolate(z[:pairs] - centre, z[pairs : 2 * pairs] - centre, how["points"]) + centre
    between = to_data(path.flatten(0, 1)).view(path.shape)
    found = {
        "count": len(x),
        "round_trip_rmse": rounded(float((back - x).square().mean().sqrt())),
        "latent_mean": rounded(float(standard.mean())),
        "latent_std": rounded(float(standard.std())),
    }
    if denoiser.levels is None:
        return found, {}, {}
    columns = quantise(between.cpu(), denoiser.levels).numpy()
    about = {"picture": "columns", "levels": denoiser.levels}
    return found, {"columns": columns}, about | {"caption": "paths between two latents, a row each"}


def _field(asked: _Asked) -> Found:
    """Return the score at three noise levels, and paths of the flow, of 2-D data."""
    denoiser, seed, device = asked.denoiser, asked.seed, asked.device
    if asked.card["levels"] is not None or list(asked.card["shape"]) != [2]:
        raise _refused("field", asked, "which is not in the plane")
    process = denoiser.process
    x = torch.from_numpy(np.array(asked.train[:_POINTS])).float()
    line = torch.linspace(-_SPAN, _SPAN, _ARROWS)
    places = torch.cartesian_prod(line, line)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    shown = {"data": x.numpy(), "places": places.numpy()}
    ratios = []
    for number, ratio in enumerate(_RATIOS):
        t = process.t_of_ratio(torch.tensor([ratio])).clamp(process.t_min, 1)
        alpha, r = float(process.alpha(t)), float(process.ratio(t))
        many = t.expand(len(places)).to(device)
        with torch.no_grad():
            score = alpha * denoiser.score(alpha * places.to(device), many).cpu()
        ratios.append(r)
        shown |= {f"noisy_{number}": (x + r * noise).numpy(), f"score_{number}": score.numpy()}
    if isinstance(process, SDE):
        paths = asked.how["paths"]
        drawn = sample(denoiser, Heun(60), paths, seed, trajectory=True, device=device)
        assert drawn.trajectory is not None
        shown["paths"] = drawn.trajectory.cpu().numpy()
    return {"ratios": ratios}, shown, {"picture": "field", "ratios": ratios}


_APPLICATIONS: dict[str, Callable[[_Asked], Found]] = {
    "likelihood": _likelihood,
    "inverse": _inverse,
    "latents": _latents,
    "field": _field,
}


def main(files: Configuration, helps: bool = False) -> None:
    """Write what was found into the records, and what there is to see beside the samples.

    Args:
        files: says which model, and what it is asked for.
        helps: whether to compute only what the process that writes has not computed yet: likelihoods.

    Raises:
        ValueError: if something that is not finite is found; nothing is written.
    """
    if helps and files.application != "likelihood":
        return
    machine = Machine.read()
    device = set_up_device(machine)
    how = resolved(f"applications/{files.application}")
    card = read_card(files.card)
    arrays = read_rows(files.arrays, card)
    where = environment(device, machine)
    folder = state_folder(
        files.name,
        {
            "weights": file_hash(files.weights),
            "data": card["sha256"],
            "how": how,
            "environment": where,
            "code": code_of(files),
        },
    )
    with stop_on_signals() as stop:
        chunks = Chunks(folder, stop)
        asked = _Asked(
            load(files.weights, device),
            card,
            arrays["train"],
            arrays["held_out"],
            how,
            how["seed"],
            chunks,
        )
        if helps:
            chunks.fill(_by_part(asked, _images(asked)))
            return
        with chunks:
            try:
                found, shown, about = _APPLICATIONS[files.application](asked)
            except (
                ValueError,
                FloatingPointError,
            ) as error:  # which say what, and not of which model
                raise ValueError(f"{files.name}: {error}; nothing is written") from error
            write_arrays(files.shown, shown, about)
            record = {
                "application": files.application,
                "dataset": files.dataset,
                "model": files.model,
                "train_seed": files.train_seed,
                "found": found,
                "environment": where,
            }
            write_text(files.record, record_text(record))
            chunks.remove()
    said = {name: value for name, value in found.items() if not isinstance(value, list)}
    print(f"{files.name}: {said}")


if __name__ == "__main__":
    run_stage(with_helpers(main), "dataset", "model", "train_seed", "application", helped=True)
