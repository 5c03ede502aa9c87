"""Folders as diffusers writes and reads them: a `UNet2DModel`, and the scheduler that explains it.

    model_index.json                            which pipeline samples with the two
    unet/config.json, unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json

Older ones have the files of `unet/` and `scheduler/` beside `model_index.json`. Pickles are not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scoremodel.bounds import shown
from scoremodel.denoiser import Denoiser
from scoremodel.io.files import atomic_folder
from scoremodel.networks.diffusers_unet2d import (
    PIPELINES,
    DiffusersUNet2D,
    check_sides,
    part_of,
    weights_of,
    wrapping,
)
from scoremodel.processes.base import Process

__all__ = ["network_of", "read_folder", "write_folder"]


def network_of(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the configuration of the network in a folder, as `Denoiser` takes it; no weights are read.

    Args:
        folder: the folder.

    Returns:
        Its kind, the keys of `unet/config.json`, and as `scheduler` the content of
        `scheduler_config.json`.

    Raises:
        ValueError: if a file is missing or damaged, or it is another network or scheduler than those
            that are known.
    """
    unet_path = part_of(folder, "unet") / "config.json"
    unet, scheduler_path = _json(unet_path), part_of(folder, "scheduler") / "scheduler_config.json"
    scheduler = _json(scheduler_path)
    if unet.get("_class_name") != "UNet2DModel":
        raise ValueError(
            f"{unet_path}: _class_name: {shown(unet.get('_class_name'))} is not allowed, allowed: "
            "UNet2DModel"
        )
    try:
        wrapping(scheduler)
    except ValueError as error:
        raise ValueError(f"{scheduler_path}: {error}") from None
    own = {key: value for key, value in unet.items() if not key.startswith("_")}
    return {"kind": "diffusers_unet2d", **own, "scheduler": scheduler}


def read_folder(
    folder: str | os.PathLike[str],
    sha256: str | None = None,
    *,
    shape: Sequence[int] | None = None,
    process: Process | None = None,
    levels: int | None = 256,
) -> Denoiser:
    """Return the model in a folder of diffusers' as a denoiser, wrapped by its own parametrisation.

    Args:
        folder: a folder with `unet` and `scheduler`.
        sha256: the checksum of its safetensors file, None for any.
        shape: shape of one image; None for the one that the network's `sample_size` says.
        process: the process to sample along; None for the one that it was trained on, of which
            DDPM's chain is taken in continuous time, `VP`.
        levels: number of grey levels of the images that it was trained on, in [−1, 1].

    Returns:
        The denoiser on the CPU, in evaluation mode.

    Raises:
        ValueError: in one line, if a file is missing, damaged or not the one meant, or the model is of
            a kind that is not known.
    """
    network = network_of(folder)
    weights_of(folder)
    size, channels = network.get("sample_size"), int(network.get("in_channels", 3))
    if shape is None:
        if size is None:
            raise ValueError(
                f"{os.fspath(folder)}: its network says no sample_size, give the shape"
            )
        shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    check_sides(network, shape, os.fspath(folder))
    denoiser = Denoiser(
        network=network,
        process=process or wrapping(network["scheduler"]).process,
        shape=shape,
        levels=levels,
        classes=network.get("num_class_embeds"),
        **DiffusersUNet2D.data_of(network, channels),
    )
    assert isinstance(denoiser.network, DiffusersUNet2D)
    denoiser.network.read(folder, sha256)
    return denoiser.eval().requires_grad_(False)


def write_folder(denoiser: Denoiser, folder: str | os.PathLike[str]) -> None:
    """Write a denoiser as a folder from which diffusers samples as we do, whole or not at all.

    Args:
        denoiser: a model whose network is of the kind `diffusers_unet2d`.
        folder: the folder to write; what was in it before is no longer there then.

    Raises:
        ValueError: if its network, or what it predicts, is one that no scheduler of diffusers' has.
    """
    network = denoiser.network
    if not isinstance(network, DiffusersUNet2D):
        raise ValueError(
            f"network: {type(network).__name__} is not allowed for a folder of diffusers', allowed: "
            "models whose network is diffusers_unet2d, without energy"
        )
    said = network.wrapping
    given = denoiser.preconditioning, denoiser.std, denoiser.data_mean.abs().max().item()
    if given != (said.preconditioning, said.std, 0.0):
        raise ValueError(
            f"preconditioning {given[0]!r} of data with std {given[1]:g} and a mean of up to "
            f"{given[2]:g} is not allowed for {network.scheduler['_class_name']}, allowed: "
            f"{said.preconditioning!r}, std {said.std:g}, mean 0"
        )
    import diffusers

    name = network.scheduler["_class_name"]
    # What nobody said is as it is here: from where to where the noise goes, and that nothing is clipped.
    unit = 0.5 if said.asked == "sigma" else 1.0
    last = torch.ones((), dtype=torch.float64)
    ends = denoiser.process.smallest_ratio(), float(denoiser.process.ratio(last))
    settings: dict[str, Any] = {"sigma_min": unit * ends[0], "sigma_max": unit * ends[1]}
    if said.asked == "level":
        settings = {"clip_sample": False}
    scheduler = getattr(diffusers, name).from_config({**settings, **network.scheduler})
    sides = list(denoiser.shape[1:])
    network.unet.register_to_config(sample_size=sides[0] if len({*sides}) == 1 else sides)
    with atomic_folder(folder) as new:
        pipeline = getattr(diffusers, PIPELINES[name])(unet=network.unet, scheduler=scheduler)
        pipeline.save_pretrained(new, safe_serialization=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = "allowed: a folder as diffusers writes it, with unet and scheduler"
        raise ValueError(f"{path}: {error.strerror}; {why}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: damaged (not JSON)") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged (no block of keys)")
    return content
