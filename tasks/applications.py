"""Stage applications: what else a trained model can do → likelihood, restored images, latents, fields."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremodel import inverse
from scoremodel.data.scale import bin_width, dequantise, quantise
from scoremodel.denoiser import Denoiser, load
from scoremodel.io.files import write_text
from scoremodel.latents import decode, encode, interpolate
from scoremodel.likelihood import bits_per_dim, log_likelihood, uniform_dequantise
from scoremodel.oracles import Gaussian
from scoremodel.samplers import Heun, sample
from scoremodel.processes.sde import SDE
from tasks import params
from tasks.arrays import read_card, read_rows
from tasks.device import environment, set_up_device
from tasks.figures import Field, field_figure
from tasks.layout import APPLICATIONS_JSON, Configuration, Data
from tasks.params import ParamsError
from tasks.pictures import save_columns
from tasks.scoring import rounded
from tasks.stage import parse_configuration, run

__all__ = ["build_operator", "main"]

_SHOWN = 10  # images in a picture
_RATIOS = (1.0, 0.3, 0.1)  # noise levels at which a field is drawn
_SPAN = 1.6  # of its axes
_ARROWS = 19
_POINTS = 4000
_PATHS = 40


def _gaussian(train: Tensor, levels: int | None) -> Gaussian:
    """Return the Gaussian with the dequantised training data's mean and covariance."""
    rows = train.flatten(1).double()
    covariance = torch.cov(rows.T)
    # What spreading each level over its bin adds; without it some pixels never vary.
    least = bin_width(levels) ** 2 / 12 if levels else 1e-6
    return Gaussian(rows.mean(0), covariance + least * torch.eye(rows.shape[1], dtype=rows.dtype))


def _likelihood(
    denoiser: Denoiser,
    held_out: NDArray[Any],
    gaussian: Gaussian,
    how: params.Likelihood,
    name: str,
    seed: int,
) -> dict[str, Any]:
    """Return bits per dimension of held-out images, the model's and the Gaussian's."""
    levels = denoiser.levels
    if levels is None:
        raise ParamsError(
            f"params.yaml: evaluation.likelihood: is not allowed for {name!r}, whose card declares no "
            "grey levels, allowed: null"
        )
    pixels = torch.from_numpy(np.array(held_out[: how.count]))
    x = uniform_dequantise(pixels, levels, seed)
    size = x[0].numel()
    device = denoiser.data_mean.device
    found = log_likelihood(
        denoiser, x.to(device), probes=how.probes, seed=seed, rtol=how.rtol, atol=how.atol
    )
    bits = bits_per_dim(found.log_prob.cpu(), size, levels)
    simple = bits_per_dim(gaussian.log_prob(x.flatten(1).double()), size, levels)
    probes = float(found.std_error.square().mean().sqrt()) / (size * math.log(2))
    root = math.sqrt(len(x))
    return {
        "bits_per_dim": rounded(float(bits.mean())),
        "std_error": rounded(float(bits.std()) / root),
        "std_error_of_probes": rounded(probes / root),
        "gaussian": rounded(float(simple.mean())),
        "gaussian_std_error": rounded(float(simple.std()) / root),
        "count": len(x),
        "probes": how.probes,
        "nfe": found.nfe,
        "dequantised_training": bool(denoiser.info["dequantised"]),
    }


def build_operator(
    block: params.MaskOperator | params.DownsampleOperator | params.BlurOperator,
    shape: Sequence[int],
    seed: int,
) -> tuple[inverse.Operator, Tensor]:
    """Return the operator that a block describes, and which pixels it hides.

    Args:
        block: `evaluation.inverse.operator`.
        shape: (C, H, W) of the images.
        seed: of a random mask, the same for all images and channels.

    Returns:
        The operator, and booleans with shape (C, H, W); of averages and blurs every pixel is hidden.

    Raises:
        ParamsError: if the operator does not fit the images.
    """
    height, width = shape[1:]
    if block.kind == "mask":
        order = torch.arange(height * width)
        if block.hidden == "random_half":
            draw = torch.Generator().manual_seed(seed)
            order = torch.randperm(height * width, generator=draw)
        hidden = (order >= height * width // 2).view(1, height, width).expand(*shape)
        return inverse.mask(~hidden), hidden
    hidden = torch.ones(*shape, dtype=torch.bool)
    if block.kind == "blur":
        return inverse.blur(block.std), hidden
    if height % block.factor or width % block.factor:
        raise ParamsError(
            f"params.yaml: evaluation.inverse.operator.factor: {block.factor} is not allowed for "
            f"images of {height}×{width}, allowed: a divisor of both"
        )
    return inverse.downsample(block.factor), hidden


def _inverse(
    denoiser: Denoiser,
    held_out: NDArray[Any],
    gaussian: Gaussian,
    how: params.Inverse,
    name: str,
    seed: int,
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Return errors on what was hidden, the model's and two baselines', and a picture's columns."""
    if len(denoiser.shape) != 3:
        raise ParamsError(
            f"params.yaml: evaluation.inverse: is not allowed for {name!r}, which has no images, "
            "allowed: null"
        )
    device = denoiser.data_mean.device
    x = dequantise(torch.from_numpy(np.array(held_out[: how.count])), denoiser.levels)
    operator, hidden = build_operator(how.operator, denoiser.shape, seed)
    noise = torch.randn(
        operator(x).shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype
    )
    y = operator(x) + how.noise_std * noise
    if how.operator.kind == "mask":
        y = operator(y)  # no noise where nothing was measured
    drawn = torch.stack(
        [
            inverse.restore(
                denoiser,
                operator,
                y.to(device),
                how.noise_std,
                Heun(how.steps),
                seed,
                method=how.method,
                iterations=how.iterations,
                start=index * len(x),
            ).cpu()
            for index in range(how.draws)
        ]
    )
    units = torch.eye(x[0].numel(), dtype=torch.float64).view(-1, *denoiser.shape)
    matrix = operator(units).flatten(1).T
    seen = matrix.abs().sum(1) > 0
    linear, _ = gaussian.posterior(matrix[seen], y.flatten(1).double()[:, seen], how.noise_std)
    linear = linear.view(x.shape)
    mean = gaussian.mean.view(1, *denoiser.shape).expand(x.shape)
    of_draws = drawn.double().mean(0)

    def squared(guess: Tensor) -> Tensor:
        return (guess.double() - x.double())[:, hidden].square().mean(1)

    def error(guess: Tensor) -> float:
        return rounded(float(squared(guess).mean().sqrt()))

    gain = squared(linear) - squared(of_draws)
    found = {
        "operator": how.operator.model_dump(),
        "method": how.method,
        "noise_std": how.noise_std,
        "count": len(x),
        "draws": how.draws,
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
    return found, np.stack(columns)


def _latents(
    denoiser: Denoiser, held_out: NDArray[Any], how: params.Latents, seed: int
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Return the error of going to latents and back, and what lies between pairs of latents."""
    device = denoiser.data_mean.device
    process = denoiser.process
    to_noise = partial(encode, denoiser, rtol=how.rtol, atol=how.atol)
    to_data = partial(decode, denoiser, rtol=how.rtol, atol=how.atol)
    pixels = torch.from_numpy(np.array(held_out[: how.count]))
    if denoiser.info["dequantised"] and denoiser.levels is not None:
        x = uniform_dequantise(pixels, denoiser.levels, seed)
    else:
        x = dequantise(pixels, denoiser.levels)
    # As the flow has them at t_min: without its noise they would come out too close to the mean.
    first = torch.full((len(x),), process.t_min)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    x = process.perturb(x, first, noise).to(device)
    z = to_noise(x)
    back = to_data(z)
    centre = denoiser.data_mean if process.prior_keeps_mean else 0.0
    standard = ((z - centre) / process.prior_std()).cpu()
    pairs = min(_SHOWN, len(x) // 2)
    path = interpolate(z[:pairs] - centre, z[pairs : 2 * pairs] - centre, how.points) + centre
    between = to_data(path.flatten(0, 1)).view(path.shape)
    found = {
        "count": len(x),
        "round_trip_rmse": rounded(float((back - x).square().mean().sqrt())),
        "latent_mean": rounded(float(standard.mean())),
        "latent_std": rounded(float(standard.std())),
    }
    return found, quantise(between.cpu(), denoiser.levels).numpy()


def _field(denoiser: Denoiser, train: NDArray[Any], seed: int) -> str:
    """Return a figure of the score at three noise levels, and paths of the flow, of 2-D data."""
    process, device = denoiser.process, denoiser.data_mean.device
    x = torch.from_numpy(np.array(train[:_POINTS])).float()
    line = torch.linspace(-_SPAN, _SPAN, _ARROWS)
    places = torch.cartesian_prod(line, line)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    fields = []
    for ratio in _RATIOS:
        t = process.t_of_ratio(torch.tensor([ratio])).clamp(process.t_min, 1)
        alpha, r = float(process.alpha(t)), float(process.ratio(t))
        many = t.expand(len(places)).to(device)
        with torch.no_grad():
            score = alpha * denoiser.score(alpha * places.to(device), many).cpu()
        fields.append(Field(r, (x + r * noise).numpy(), places.numpy(), score.numpy()))
    paths = None
    if isinstance(process, SDE):
        drawn = sample(denoiser, Heun(60), _PATHS, seed, trajectory=True, device=device)
        assert drawn.trajectory is not None
        paths = drawn.trajectory.cpu().numpy()
    return field_figure(fields, x.numpy(), paths)


def main(arguments: Sequence[str]) -> None:
    """Write what was found, as JSON and pictures, into the model's folder."""
    configuration: Configuration
    configuration, given = parse_configuration(arguments, sampler=False)
    evaluation = given.evaluation
    files = Data(configuration.dataset)
    card, arrays = read_card(files.card), read_rows(files.arrays)
    plane = card["levels"] is None and card["shape"] == [2]
    wanted = (evaluation.likelihood, evaluation.inverse, evaluation.latents)
    found: dict[str, Any] = {"likelihood": None, "inverse": None, "latents": None}
    folder = configuration.applications
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if plane or any(one is not None for one in wanted):
        device = set_up_device(given)
        denoiser = load(configuration.weights, device)
        held_out, seed = arrays["held_out"], given.seed
        train = torch.from_numpy(np.array(arrays["train"]))
        name = configuration.dataset
        if evaluation.likelihood or evaluation.inverse:
            gaussian = _gaussian(dequantise(train, card["levels"]), card["levels"])
        if evaluation.likelihood:
            found["likelihood"] = _likelihood(
                denoiser, held_out, gaussian, evaluation.likelihood, name, seed
            )
        if evaluation.inverse:
            found["inverse"], columns = _inverse(
                denoiser, held_out, gaussian, evaluation.inverse, name, seed
            )
            save_columns(columns, card["levels"], folder / "restored.png")
        if evaluation.latents:
            found["latents"], columns = _latents(denoiser, held_out, evaluation.latents, seed)
            if card["levels"] is not None:
                save_columns(columns, card["levels"], folder / "between.png")
        if plane:
            write_text(folder / "field.svg", _field(denoiser, arrays["train"], seed))
        found["environment"] = environment(device, given)
    write_text(folder / APPLICATIONS_JSON, json.dumps(found, indent=2) + "\n")
    done = [name for name in ("likelihood", "inverse", "latents") if found[name]]
    print(f"{configuration.model_name}: {', '.join(done) or 'nothing asked for'}")


if __name__ == "__main__":
    run(main)
