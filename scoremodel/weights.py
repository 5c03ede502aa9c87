"""Weights on disk: safetensors with their configuration inside, nothing pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scoremodel.files import atomic_path

__all__ = ["read_weights", "write_weights"]

_KEY = "scoremodel"  # one key only: safetensors orders several differently in each process


def write_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Any) -> None:
    """Write a module's state and `metadata` (JSON), whole or not at all, the same bytes every time."""
    tensors = {name: value.contiguous().cpu() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(metadata, sort_keys=True)})


def read_weights(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that `write_weights` wrote.

    Args:
        path: a safetensors file.
        device: where the tensors go.

    Returns:
        The module's state by name, and the metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was not written by `write_weights`.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: damaged or no safetensors file ({error})") from error
    if text is None:
        raise ValueError(f"{os.fspath(path)}: no scoremodel configuration inside")
    return tensors, json.loads(text)
