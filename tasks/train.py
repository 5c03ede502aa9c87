"""Stage train: score matching, over many noise levels or at one → weights and training curves.

Of a pretrained model the weights are read in place of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from scoremodel.data.scale import to_unit
from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints
from scoremodel.io.denoisers import save
from scoremodel.io.files import atomic_path
from scoremodel.networks.base import NETWORKS
from scoremodel.parametrisation import Denoise
from scoremodel.precision import resolve_precision
from scoremodel.processes.base import Process, process_from_config
from scoremodel.ranks import Ranks
from scoremodel.rng import derive_seed
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import BANDS, train
from scoremodel.training.times.base import TIMES
from tasks.files.arrays import read_card, read_rows
from tasks.files.device import Machine, device_name, environment, set_up_device
from tasks.files.layout import Configuration
from tasks.files.ranks import on_ranks
from tasks.files.resolved import resolved
from tasks.files.stage import code_of, run_stage
from tasks.files.state import state_folder, stop_on_signals
from tasks.files.timing import write_timing
from tasks.files.watch import Watch
from tasks.params.errors import ParamsError
from tasks.params.memory import require_memory, size_of, training_memory

__all__ = ["build_denoiser", "main", "parts", "training_config", "true_score", "write_curves"]


def build_denoiser(
    model: Mapping[str, Any], card: Mapping[str, Any], process: Process, seed: int
) -> Denoiser:
    """Return the untrained denoiser that `model` describes, for the data that `card` describes.

    Args:
        model: a model as `check` resolved it, with the one network that the data take.
        card: the data set's card.
        process: the model's forward process.
        seed: seed of the initial weights.

    Returns:
        A denoiser on the CPU, class-conditional if labels are to be dropped with some probability.
    """
    ((kind, network),) = model["network"].items()
    of_data = {
        "mean": card["mean"],
        "std": card["std"],
        "preconditioning": model["preconditioning"],
    }
    if hasattr(NETWORKS[kind], "data_of"):  # which is made for data of its own scale
        of_data = NETWORKS[kind].data_of(network, len(card["mean"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return Denoiser(
            network={"kind": kind, **network},
            process=process,
            shape=card["shape"],
            levels=card["levels"],
            classes=len(card["class_counts"]) if _conditional(model) else None,
            energy=model.get("energy", False),
            **of_data,
        )


def _conditional(model: Mapping[str, Any]) -> bool:
    """Return whether a model knows classes: a pretrained one if it was trained with them."""
    if model.get("pretrained"):
        ((_, network),) = model["network"].items()
        return network.get("num_class_embeds") is not None
    return model["training"].get("label_dropout") is not None


def true_score(
    name: str, model: Mapping[str, Any], card: Mapping[str, Any], process: Process
) -> Denoise | None:
    """Return ∇ ln p_t of data drawn from a known mixture, which the objective "explicit" needs.

    Args:
        name: the model's name, for the error.
        model: a model as `check` resolved it.
        card: the data set's card.
        process: the model's forward process.

    Returns:
        The score as a function of (x_t, t), or None for other objectives.

    Raises:
        ParamsError: if the objective does not fit the data.
    """
    objective = model["training"].get("objective")
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
    from scoremodel.oracles import GaussianMixture

    oracle = GaussianMixture(**card["mixture"])

    def score(x_t: Tensor, t: Tensor) -> Tensor:
        exact = oracle.score(x_t.cpu().double(), t.cpu().double(), process)
        return exact.to(x_t)

    return score


def training_config(training: Mapping[str, Any]) -> TrainingConfig:
    """Return the library's configuration of the training that a model's block describes."""
    given = dict(training)
    times = dict(given.pop("times"))
    given["times"] = TIMES.make(times.pop("kind"), **times)
    for key in ("ema_half_lives", "ema_stds"):
        given[key] = tuple(given.get(key, ()))
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


def _labels(
    model: Mapping[str, Any], card: Mapping[str, Any], arrays: Mapping[str, Any], name: str
) -> Tensor | None:
    """Return the training data's classes, if the model is to know them."""
    dropout = model["training"].get("label_dropout")
    if dropout is None:
        return None
    if not card["class_counts"]:
        raise ParamsError(
            f"params.yaml: models.{name}.training.label_dropout: {dropout} is not allowed for "
            f"{card['name']!r}, which has no classes, allowed: null"
        )
    return torch.from_numpy(arrays["train_labels"])


def _convert(
    model: Mapping[str, Any], card: Mapping[str, Any], process: Process, files: Configuration
) -> None:
    """Write a published model's weights as a training's are written, and curves without a loss."""
    given = model["pretrained"]
    denoiser = build_denoiser(model, card, process, files.train_seed)
    network: Any = denoiser.network
    network.read(given["path"], given["sha256"])
    counts = card["class_counts"]
    info = {
        "dataset": files.dataset,
        "data_sha256": card["sha256"],
        "model": files.model,
        "train_seed": files.train_seed,
        "parameters": sum(weight.numel() for weight in denoiser.parameters()),
        "train_images": 0,  # none of them here
        "dequantised": False,
        "label_counts": list(counts.values()) if _conditional(model) else None,
        "environment": f"pretrained, sha256 {given['sha256']}",
    }
    print(f"{files.model_name}: {given['path']}, {process}", flush=True)
    save(denoiser, files.weights, info)
    losses = ["loss", *(f"loss_band_{n + 1}" for n in range(BANDS))]
    write_curves(pd.DataFrame([{"step": 0, **dict.fromkeys(losses, math.nan)}]), files)


def parts(files: Configuration) -> int:
    """Return in how many parts a batch is computed."""
    model = resolved(f"models/{files.dataset}-{files.model}")
    return 1 if model.get("pretrained") else int(model["training"]["parts"])


def main(files: Configuration, ranks: Ranks) -> None:
    """Write the averaged weights as safetensors, and the curves as CSV.

    Args:
        files: says which data set, model and training seed.
        ranks: this process's place among those that train together, of which the first one writes.
    """
    model = resolved(f"models/{files.dataset}-{files.model}")
    if model.get("pretrained"):  # in one process
        _convert(model, read_card(files.card), process_from_config(model["sde"]), files)
        return
    keeping, machine = resolved("keeping"), Machine.read()
    device = set_up_device(machine)
    card = read_card(files.card)
    arrays = read_rows(files.arrays, card)
    data = torch.from_numpy(arrays["train"])
    labels = _labels(model, card, arrays, files.model)
    process = process_from_config(model["sde"], lambda: to_unit(data, card["levels"]))
    known = true_score(files.model, model, card, process)
    ((kind, network),) = model["network"].items()
    classes = None if labels is None else len(card["class_counts"])
    size = size_of({"kind": kind, **network}, card["shape"], classes)
    if size is not None:
        shares = ranks.world_size if keeping["sharded"] else 1
        least, _ = training_memory(size, model["training"], network, shares)
        require_memory(f"models.{files.model}", least, str(device))
    denoiser = build_denoiser(model, card, process, files.train_seed).to(device)
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    print(f"{files.model_name}: {parameters / 1e6:.2f} M parameters, {process}", flush=True)

    config = training_config(model["training"])
    precision = resolve_precision(config.precision, device)
    where = f"{environment(device, machine)}, {precision}"
    info = {
        "dataset": files.dataset,
        "data_sha256": card["sha256"],
        "model": files.model,
        "train_seed": files.train_seed,
        "parameters": parameters,
        "train_images": config.steps * config.batch_size,
        "dequantised": config.dequantise,
        "label_counts": None if labels is None else list(card["class_counts"].values()),
        "environment": where,
    }
    folder = state_folder(
        files.model_name,
        {
            "model": model,
            "train_seed": files.train_seed,
            "data": card["sha256"],
            "environment": where,
            "code": code_of(files),
        },
    )
    kept = keeping["checkpoints"]
    watch = Watch(folder, **keeping["watch"]) if ranks.first else None
    with ExitStack() as opened:
        stop = opened.enter_context(stop_on_signals())
        checkpoints = Checkpoints(folder, kept["every_steps"], kept["every_seconds"], stop)
        if ranks.first:  # one process of them holds the folder
            opened.enter_context(checkpoints)
        began, resumed = time.perf_counter(), checkpoints.exist()
        verb = "goes on from" if resumed else "can be watched in"
        of_them = "" if ranks.world_size == 1 else f", {ranks.world_size} processes"
        print(f"{files.model_name}: {verb} {folder}{of_them}", flush=True)
        trained = train(
            denoiser,
            data,
            config,
            files.train_seed,
            progress=ranks.first,
            labels=labels,
            checkpoints=checkpoints,
            observer=watch,
            true_score=known,
            ranks=ranks,
            sharded=keeping["sharded"],
        )
        if not ranks.first:
            return
        seconds = time.perf_counter() - began
        save(trained.averaged, files.weights, info)
        write_curves(pd.DataFrame(trained.curves), files)
        if not resumed:  # what the part before the interruption took is not known
            timing = {"seconds": seconds, "device": device_name(device)}
            write_timing(files.weights, timing)
        checkpoints.remove()


if __name__ == "__main__":
    run_stage(on_ranks(main, parts), "dataset", "model", "train_seed")
