"""Denoisers on disk: one safetensors file with weights, process and network.

What is registered (`PROCESSES`, `NETWORKS`) is named with its parameters, and made again from them. A
module or a process of one's own that is not has its class's name in the file, and is given to `load`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scoremodel.bounds import shown
from scoremodel.denoiser import Denoiser, as_channels_last, kernel_of
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.networks.base import NETWORKS
from scoremodel.processes.base import PROCESSES, Process, process_from_config

__all__ = ["load", "save"]

_FORMAT = 2  # of weight files; 1 had group normalisation under the same names


def save(
    denoiser: Denoiser | Mapping[float, Denoiser],
    path: str | os.PathLike[str],
    info: dict[str, Any] | None = None,
) -> None:
    """Write a model, or the averages of one, as one safetensors file, whole or not at all.

    Averages are named by their half-life, at least 1, or by their relative width, below that.
    `info` is anything else worth keeping with the weights, as JSON; it must repeat from run to run.
    """
    if isinstance(denoiser, Denoiser):
        names, state, config = [], denoiser.state_dict(), denoiser.config()
    else:
        names = list(denoiser)
        state = {
            f"{name:.15g}/{key}": value
            for name, average in denoiser.items()
            for key, value in average.state_dict().items()
        }
        config = next(iter(denoiser.values())).config()
    said = {"format": _FORMAT, "config": config, "info": info or {}}
    said["ema_half_lives"] = [f"{name:.15g}" for name in names if name >= 1]
    if stds := [f"{name:.15g}" for name in names if name < 1]:
        said["ema_stds"] = stds
    write_weights(path, state, said)


def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    ema_half_life: float | None = None,
    *,
    ema_std: float | None = None,
    network: nn.Module | None = None,
    process: Process | None = None,
) -> Denoiser:
    """Return the denoiser that `save` wrote, in evaluation mode; nothing is unpickled.

    Args:
        path: a safetensors file.
        device: where the weights go.
        ema_half_life: which of several averages; None is the first of them.
        ema_std: which of several averages by its relative width, in place of a half-life.
        network: the network, whose weights become those of the file; needed for a module of one's own.
        process: the process, needed for one of one's own that is not registered.

    Returns:
        The denoiser; its attributes `info`, `ema_half_life` and `ema_std` say what was saved with the
        weights, and which average they are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, was not written by this version's `save`, lacks that
            average, or holds a network or a process that it cannot make and that is not given, or
            not the one that is given.
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
    half_lives, stds = stored["ema_half_lives"], stored.get("ema_stds", [])
    chosen: Any = next(iter([*half_lives, *stds]), None)
    for what, asked, kept in (
        ("half-life", ema_half_life, half_lives),
        ("relative width", ema_std, stds),
    ):
        if asked is not None:
            chosen = f"{asked:.15g}"
            if chosen not in kept:
                raise ValueError(
                    f"{os.fspath(path)}: holds no average with {what} {chosen}, "
                    f"allowed: {', '.join(kept) or 'none'}"
                )
    if chosen is not None:
        tensors = {
            key.removeprefix(f"{chosen}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{chosen}/")
        }
    made = _process(path, config.pop("sde"), process)
    if network is None and config["network"].get("kind") not in NETWORKS:
        name = config["network"].get("module") or config["network"].get("kind")
        raise ValueError(
            f"{os.fspath(path)}: holds the weights of the network {shown(name)}, which is registered "
            "nowhere, allowed: load(path, network=…) with such a module, or the import of what registers it"
        )
    try:
        denoiser = Denoiser(process=made, **config | ({"network": network} if network else {}))
        denoiser.to(tensors["mean"].dtype).load_state_dict(tensors)
    except (TypeError, RuntimeError) as error:
        if network is not None:
            said = " ".join(str(error).split("\n\t", 1)[-1].split())
            raise ValueError(
                f"{os.fspath(path)}: does not hold the weights of such a {type(network).__name__}: "
                f"{said[:200]}"
            ) from error
        raise ValueError(  # of a version whose networks were other ones
            f"{os.fspath(path)}: holds the weights of a network that this version does not have; train "
            "the model again"
        ) from error
    denoiser.info = stored["info"]
    denoiser.ema_half_life = float(chosen) if chosen in half_lives else None
    denoiser.ema_std = float(chosen) if chosen in stds else None
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return as_channels_last(denoiser)


def _process(
    path: str | os.PathLike[str], config: dict[str, Any], given: Process | None
) -> Process:
    """Return the process that a file names, or the one that is given, if it is the file's."""
    named = "kernel" not in config and config.get("kind") in PROCESSES
    if given is None and not named:
        name = config.get("class") or config.get("kind")
        raise ValueError(
            f"{os.fspath(path)}: holds a model of the process {shown(name)}, which is registered nowhere, "
            "allowed: load(path, process=…) with that process, or the import of what registers it"
        )
    expected = process_from_config(config) if named else given
    assert expected is not None
    kernel = config.get("kernel") or kernel_of(expected)
    if given is not None and not torch.allclose(
        torch.tensor(kernel_of(given)), torch.tensor(kernel), rtol=1e-4, atol=1e-6
    ):
        raise ValueError(
            f"{os.fspath(path)}: holds a model of another process than {shown(given)}, allowed: one with "
            f"sigma_1 / alpha_1 = {kernel[-1][2] / kernel[-1][1]:.4g}"
        )
    return given or expected
