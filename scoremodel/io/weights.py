"""Tensors on disk: safetensors with a description and a hash of both inside, nothing pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from scoremodel.io.files import DamagedError, atomic_path

__all__ = ["content_digest", "read_weights", "write_weights"]

_KEY = "scoremodel"


def write_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Any) -> None:
    """Write tensors and `metadata` (JSON), whole or not at all, the same bytes every time."""
    tensors = {name: value.detach().contiguous().cpu() for name, value in state.items()}
    text = json.dumps(metadata, sort_keys=True)
    # One entry: several would come in any order, and the bytes would not repeat.
    header = {_KEY: json.dumps({"content": text, "hash": content_digest(tensors, text)})}
    # In memory first: of a full disk safetensors' own writer says so in an error that is no OSError.
    content = serialise(tensors, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_weights(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that `write_weights` wrote, their hash checked.

    Args:
        path: a safetensors file.
        device: where the tensors go.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if the content is not what `write_weights` wrote, naming the file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(path, "cut off, or no safetensors file") from error
    except KeyError as error:
        raise DamagedError(path, "a safetensors file of another program") from error
    if not isinstance(header, dict) or not isinstance(text := header.get("content"), str):
        raise DamagedError(path, "without the hash that newer files have", "make it again")
    if content_digest(tensors, text) != header.get("hash"):
        raise DamagedError(path, "its content is not what was written")
    return {name: value.to(device) for name, value in tensors.items()}, json.loads(text)


def content_digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return a hash of tensors, their names, types and shapes, and a text; their order does not matter.

    Args:
        tensors: contiguous tensors on the CPU.
        text: the text.

    Returns:
        64 hexadecimal digits.
    """
    names = sorted(tensors)
    said = [(name, str(tensors[name].dtype), list(tensors[name].shape)) for name in names]
    digest = sha256(json.dumps([text, said]).encode())  # fast: processors have instructions for it
    for name in names:
        if tensors[name].numel():
            # As bytes, since numpy has no bfloat16.
            digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
