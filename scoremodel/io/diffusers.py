"""Folders as diffusers writes and reads them: a `UNet2DModel`, and the scheduler that explains it.

    model_index.json                            which pipeline samples with the two
    unet/config.json, unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json

Older ones have the files of `unet/` and `scheduler/` beside `model_index.json`. Pickles are not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scoremodel.bounds import shown
from scoremodel.denoiser import Denoiser
from scoremodel.io.files import atomic_folder
from scoremodel.networks.diffusers_unet2d import PIPELINES, DiffusersUNet2D, wrapping
from scoremodel.processes.base import Process

__all__ = ["check_sides", "network_of", "read_folder", "weights_of", "write_folder"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"


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
    unet_path = _inside(folder, "unet") / "config.json"
    unet, scheduler_path = _json(unet_path), _inside(folder, "scheduler") / "scheduler_config.json"
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


def weights_of(folder: str | os.PathLike[str], sha256: str | None = None) -> Path:
    """Return the path of a folder's weights.

    Args:
        folder: the folder.
        sha256: the checksum that the file must have; None for any.

    Returns:
        The safetensors file.

    Raises:
        ValueError: if there is none, or it has another checksum.
    """
    path = _inside(folder, "unet") / _WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; allowed: weights as one safetensors file, pickles (.bin) are not read"
        )
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{path}: sha256 is {found}, not {sha256}: broken, or another file")
    return path


def check_sides(network: dict[str, Any], shape: Sequence[int], who: str) -> None:
    """Refuse data that do not fit a network.

    Args:
        network: as `network_of` returns it.
        shape: shape of one data point.
        who: what is refused, for the message.

    Raises:
        ValueError: if they are no images, or of another size or number of channels.
    """
    size, channels = network.get("sample_size"), network.get("in_channels", 3)
    sides = [size, size] if isinstance(size, int) else size
    halvings = len(network.get("block_out_channels", range(4))) - 1
    if len(shape) != 3 or shape[0] != channels or (sides and list(shape[1:]) != list(sides)):
        allowed = [channels, *(sides or ("H", "W"))]
        raise ValueError(
            f"{who}: data of shape {tuple(shape)} do not fit this network, allowed: "
            f"({', '.join(map(str, allowed))})"
        )
    if any(side % 2**halvings for side in shape[1:]):
        raise ValueError(
            f"{who}: images of {shape[1]}×{shape[2]} pixels do not fit this network, which halves them "
            f"{halvings} times, allowed: sides that are multiples of {2**halvings}"
        )


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
    path = weights_of(folder, sha256)
    size, channels = network.get("sample_size"), int(network.get("in_channels", 3))
    if shape is None:
        if size is None:
            raise ValueError(f"{path.parent / 'config.json'}: sample_size: None, give the shape")
        shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    check_sides(network, shape, os.fspath(folder))
    said = wrapping(network["scheduler"])
    denoiser = Denoiser(
        network=network,
        process=process or said.process,
        shape=shape,
        mean=[0.0] * channels,
        std=said.std,
        levels=levels,
        classes=network.get("num_class_embeds"),
        preconditioning=said.preconditioning,
    )
    assert isinstance(denoiser.network, DiffusersUNet2D)
    denoiser.network.unet.load_state_dict(_state(path))
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
    # Ours does not clip: where nobody said that theirs should, it does not either.
    settings = {"clip_sample": False} if said.asked == "level" else {}
    settings |= {key: value for key, value in network.scheduler.items() if key[0] != "_"}
    scheduler = getattr(diffusers, name)(**settings)
    sides = list(denoiser.shape[1:])
    network.unet.register_to_config(sample_size=sides[0] if len({*sides}) == 1 else sides)
    with atomic_folder(folder) as new:
        pipeline = getattr(diffusers, PIPELINES[name])(unet=network.unet, scheduler=scheduler)
        pipeline.save_pretrained(new, safe_serialization=True)


def _inside(folder: str | os.PathLike[str], name: str) -> Path:
    """Return where a part of a folder lies: in a folder of its own, or in older ones beside the index."""
    own = Path(folder) / name
    return own if own.is_dir() else Path(folder)


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


def _state(path: Path) -> dict[str, Any]:
    """Return the weights in a file, older names made new by diffusers itself."""
    from diffusers import UNet2DModel

    try:
        unet, found = UNet2DModel.from_pretrained(
            path.parent,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        why = shown(" ".join(str(error).split()))
        raise ValueError(f"{path}: damaged, or of another network than config.json says: {why}") from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} weights do not fit unet/config.json, such as {shown(wrong[0])}"
        )
    state: dict[str, Any] = unet.state_dict()
    return state
