"""Stage train: score matching, over many noise levels or at one → weights and training curves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from scoremodel.io.checkpoint import Checkpoints
from scoremodel.data.scale import dequantise
from scoremodel.denoiser import Denoise, Denoiser, save
from scoremodel.io.files import atomic_path
from scoremodel.oracles import GaussianMixture
from scoremodel.rng import derive_seed
from scoremodel.processes.sde import Process
from scoremodel.training.times import TIMES
from scoremodel.training.loop import BANDS, TrainingConfig, resolve_precision, train
from tasks.arrays import read_card, read_rows
from tasks.device import device_name, environment, set_up_device
from tasks.layout import Configuration, Data
from tasks.params import Model, ParamsError, Training
from tasks.process import build_process
from tasks.stage import parse_configuration, run
from tasks.state import state_folder, stop_on_signals
from tasks.timing import write_timing
from tasks.watch import Watch

__all__ = ["build_denoiser", "main", "training_config", "true_score", "write_curves"]


def build_denoiser(model: Model, card: dict[str, Any], process: Process, seed: int) -> Denoiser:
    """Return the untrained denoiser that `model` describes, for the data that `card` describes.

    Args:
        model: one block of `params.yaml`'s `models:`.
        card: the data set's card.
        process: the model's forward process.
        seed: seed of the initial weights.

    Returns:
        A denoiser on the CPU, class-conditional if labels are to be dropped with some probability.
    """
    kind = "unet" if len(card["shape"]) == 3 else "mlp"
    conditional = model.training.label_dropout is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return Denoiser(
            network={"kind": kind, **getattr(model.network, kind).model_dump()},
            process=process,
            shape=card["shape"],
            mean=card["mean"],
            std=card["std"],
            levels=card["levels"],
            classes=len(card["class_counts"]) if conditional else None,
            preconditioning=model.preconditioning,
            energy=model.energy,
        )


def true_score(name: str, model: Model, card: dict[str, Any], process: Process) -> Denoise | None:
    """Return ∇ ln p_t of data drawn from a known mixture, which the objective "explicit" needs.

    Args:
        name: the model's name, for the error.
        model: one block of `params.yaml`'s `models:`.
        card: the data set's card.
        process: the model's forward process.

    Returns:
        The score as a function of (x_t, t), or None for other objectives.

    Raises:
        ParamsError: if the objective does not fit the data.
    """
    objective = model.training.objective
    where = f"params.yaml: models.{name}.training.objective: {objective!r} is not allowed for"
    if objective == "implicit" and len(card["shape"]) != 1:
        raise ParamsError(
            f"{where} {card['name']!r}, allowed: denoising, sliced; its trace takes a "
            "backward pass a dimension"
        )
    if objective != "explicit":
        return None
    if card["mixture"] is None:
        raise ParamsError(
            f"{where} {card['name']!r}, whose score is not known, allowed: denoising, "
            "sliced, implicit"
        )
    oracle = GaussianMixture(**card["mixture"])

    def score(x_t: Tensor, t: Tensor) -> Tensor:
        exact = oracle.score(x_t.cpu().double(), t.cpu().double(), process)
        return exact.to(x_t)

    return score


def training_config(training: Training) -> TrainingConfig:
    """Return the library's configuration of the training that a model's block describes."""
    given = training.model_dump()
    times = given.pop("times")
    given["times"] = TIMES[times.pop("kind")](**times)
    given["ema_half_lives"] = tuple(given["ema_half_lives"])
    if given["label_dropout"] is None:
        del given["label_dropout"]
    return TrainingConfig(**given)


def write_curves(curves: pd.DataFrame, configuration: Configuration) -> None:
    """Write the loss, and in a file of its own the loss by noise band, one row for step and band.

    Args:
        curves: one row for each point, as `scoremodel.training.loop.train` returns them.
        configuration: says where the files lie.
    """
    names = {
        f"loss_band_{n + 1}": f"t in [{n / BANDS:g}, {(n + 1) / BANDS:g}]" for n in range(BANDS)
    }
    bands = (
        curves[["step", *names]]
        .rename(columns=names)
        .melt("step", var_name="band", value_name="loss")
    )
    for rows, path in (
        (curves.drop(columns=list(names)), configuration.curves),
        (bands, configuration.bands),
    ):
        with atomic_path(path) as temporary:
            rows.to_csv(temporary, index=False, float_format="%.6g")


def main(arguments: Sequence[str]) -> None:
    """Write the averaged weights as safetensors, and the curves as CSV."""
    configuration, params = parse_configuration(arguments, sampler=False)
    model = params.models[configuration.model]
    training = model.training
    device = set_up_device(params)
    files = Data(configuration.dataset)
    card = read_card(files.card)
    arrays = read_rows(files.arrays)
    data = torch.from_numpy(arrays["train"])
    labels = None
    if training.label_dropout is not None:
        if not card["class_counts"]:
            raise ParamsError(
                f"params.yaml: models.{configuration.model}.training.label_dropout: "
                f"{training.label_dropout} is not allowed for {configuration.dataset!r}, which has no "
                "classes, allowed: null"
            )
        labels = torch.from_numpy(arrays["train_labels"])
    process = build_process(model.sde)
    if process is None:  # it follows from the data
        process = build_process(model.sde, dequantise(data, card["levels"]))
        assert process is not None
    known = true_score(configuration.model, model, card, process)
    denoiser = build_denoiser(model, card, process, configuration.train_seed).to(device)
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    print(f"{configuration.model_name}: {parameters / 1e6:.2f} M parameters, {process}", flush=True)

    config = training_config(training)
    precision = resolve_precision(config.precision, device)
    machine = f"{environment(device, params)}, {precision}"
    info = {
        "dataset": configuration.dataset,
        "data_sha256": card["sha256"],
        "model": configuration.model,
        "train_seed": configuration.train_seed,
        "parameters": parameters,
        "train_images": training.steps * training.batch_size,
        "dequantised": training.dequantise,
        "label_counts": None if labels is None else list(card["class_counts"].values()),
        "environment": machine,
    }
    kept = params.checkpoints
    folder = state_folder(
        configuration.model_name,
        params,
        {
            "model": model.model_dump(),
            "train_seed": configuration.train_seed,
            "data": card["sha256"],
            "environment": machine,
        },
    )
    watch = Watch(folder, params.watch)
    with (
        stop_on_signals() as stop,
        Checkpoints(folder, kept.every_steps, kept.every_seconds, stop) as checkpoints,
    ):
        began, resumed = time.perf_counter(), checkpoints.exist()
        verb = "goes on from" if resumed else "can be watched in"
        print(f"{configuration.model_name}: {verb} {folder}", flush=True)
        trained = train(
            denoiser,
            data,
            config,
            configuration.train_seed,
            progress=True,
            labels=labels,
            checkpoints=checkpoints,
            observer=watch,
            true_score=known,
        )
        seconds = time.perf_counter() - began
        save(trained.averaged, configuration.weights, info)
        write_curves(pd.DataFrame(trained.curves), configuration)
        if not resumed:  # what the part before the interruption took is not known
            timing = {"seconds": seconds, "device": device_name(device)}
            write_timing(configuration.weights, timing)
        checkpoints.remove()


if __name__ == "__main__":
    run(main)
