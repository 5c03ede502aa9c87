"""Denoisers on disk: one safetensors file with weights, process and network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from scoremodel.denoiser import Denoiser, as_channels_last
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.processes.base import process_from_config

__all__ = ["load", "save"]

_FORMAT = 2  # of weight files; 1 had group normalisation under the same names


def save(
    denoiser: Denoiser | Mapping[float, Denoiser],
    path: str | os.PathLike[str],
    info: dict[str, Any] | None = None,
) -> None:
    """Write a model, or the averages of one by their half-life, as one safetensors file, whole or not at all.

    `info` is anything else worth keeping with the weights, as JSON; it must repeat from run to run.
    """
    if isinstance(denoiser, Denoiser):
        state, config, half_lives = denoiser.state_dict(), denoiser.config(), []
    else:
        half_lives = [f"{half_life:.15g}" for half_life in denoiser]
        state = {
            f"{name}/{key}": value
            for name, average in zip(half_lives, denoiser.values(), strict=True)
            for key, value in average.state_dict().items()
        }
        config = next(iter(denoiser.values())).config()
    write_weights(
        path,
        state,
        {"format": _FORMAT, "config": config, "ema_half_lives": half_lives, "info": info or {}},
    )


def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    ema_half_life: float | None = None,
) -> Denoiser:
    """Return the denoiser that `save` wrote, in evaluation mode; nothing is unpickled.

    Args:
        path: a safetensors file.
        device: where the weights go.
        ema_half_life: which of several averages; None is the first of them.

    Returns:
        The denoiser; its attributes `info` and `ema_half_life` say what was saved with the weights,
        and which average they are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, was not written by this version's `save`, or lacks that
            average.
    """
    tensors, stored = read_weights(path)
    config = stored.get("config", {}) if isinstance(stored, dict) else {}
    if "sde" not in config:
        raise ValueError(f"{os.fspath(path)}: holds no denoiser, allowed: what save wrote")
    if stored.get("format") != _FORMAT:
        raise ValueError(
            f"{os.fspath(path)}: holds weights of format {stored.get('format', 1)}, whose networks "
            f"were other ones, allowed: {_FORMAT}; train the model again"
        )
    half_lives, chosen = stored["ema_half_lives"], None
    if half_lives or ema_half_life is not None:
        chosen = half_lives[0] if ema_half_life is None else f"{ema_half_life:.15g}"
        if chosen not in half_lives:
            raise ValueError(
                f"{os.fspath(path)}: holds no average with half-life {chosen}, "
                f"allowed: {', '.join(half_lives) or 'none'}"
            )
        tensors = {
            key.removeprefix(f"{chosen}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{chosen}/")
        }
    try:
        denoiser = Denoiser(process=process_from_config(config.pop("sde")), **config)
        denoiser.load_state_dict(tensors)
    except (TypeError, RuntimeError) as error:  # of a version whose networks were other ones
        raise ValueError(
            f"{os.fspath(path)}: holds the weights of a network that this version does not have; train "
            "the model again"
        ) from error
    denoiser.info = stored["info"]
    denoiser.ema_half_life = float(chosen) if chosen else None
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return as_channels_last(denoiser)
