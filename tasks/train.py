"""Stage train: denoising score matching over many noise levels → weights and training curves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from scoremodel.chains import process_from_config
from scoremodel.denoiser import Denoiser, save
from scoremodel.files import atomic_path
from scoremodel.rng import derive_seed
from scoremodel.training import BANDS, TrainingConfig, train
from tasks.arrays import read_arrays, read_card
from tasks.device import device_name, environment, set_up_device
from tasks.layout import Configuration, Data
from tasks.params import Model
from tasks.stage import parse_configuration, run
from tasks.timing import write_timing

__all__ = ["build_denoiser", "main", "write_curves"]


def build_denoiser(model: Model, card: dict[str, Any], seed: int) -> Denoiser:
    """Return the untrained denoiser that `model` describes, for the data that `card` describes.

    Args:
        model: one block of `params.yaml`'s `models:`.
        card: the data set's card.
        seed: seed of the initial weights.

    Returns:
        A denoiser on the CPU.
    """
    kind = "unet" if len(card["shape"]) == 3 else "mlp"
    torch.manual_seed(derive_seed(seed, "weights"))
    return Denoiser(
        network={"kind": kind, **getattr(model.network, kind).model_dump()},
        process=process_from_config(model.sde.model_dump()),
        shape=card["shape"],
        mean=card["mean"],
        std=card["std"],
        levels=card["levels"],
    )


def write_curves(curves: pd.DataFrame, configuration: Configuration) -> None:
    """Write the loss, and in a file of its own the loss by noise band, one row for step and band.

    Args:
        curves: one row for each point, as `scoremodel.training.train` returns them.
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
    device = set_up_device(params.device, params.threads)
    files = Data(configuration.dataset)
    card = read_card(files.card)
    arrays, _ = read_arrays(files.arrays)
    denoiser = build_denoiser(model, card, configuration.train_seed).to(device)
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    print(f"{configuration.model_name}: {parameters / 1e6:.2f} M parameters", flush=True)

    began = time.perf_counter()
    averaged, curves = train(
        denoiser,
        torch.from_numpy(arrays["train"]),
        TrainingConfig(**model.training.model_dump()),
        configuration.train_seed,
        progress=True,
    )
    seconds = time.perf_counter() - began
    info = {
        "dataset": configuration.dataset,
        "data_sha256": card["sha256"],
        "model": configuration.model,
        "train_seed": configuration.train_seed,
        "parameters": parameters,
        "train_images": model.training.steps * model.training.batch_size,
        "environment": environment(device, params.threads),
    }
    save(averaged, configuration.weights, info)
    write_curves(pd.DataFrame(curves), configuration)
    write_timing(configuration.weights, {"seconds": seconds, "device": device_name(device)})


if __name__ == "__main__":
    run(main)
