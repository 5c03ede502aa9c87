"""Weights on disk: safetensors with their configuration inside, nothing pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from scoremodel.io.files import atomic_path

__all__ = ["read_weights", "write_tensors", "write_weights"]

_KEY = "scoremodel"


def write_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Any) -> None:
    """Write a module's state and `metadata` (JSON), whole or not at all, the same bytes every time."""
    tensors = {name: value.contiguous().cpu() for name, value in state.items()}
    write_tensors(path, tensors, {_KEY: json.dumps(metadata, sort_keys=True)})


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], header: dict[str, str]
) -> None:
    """Write contiguous tensors on the CPU as one safetensors file, whole or not at all.

    Of a header with one name only the bytes repeat; several come in any order.
    """
    # In memory first: of a full disk safetensors' own writer says so in an error that is no OSError.
    content = serialise(tensors, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


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
