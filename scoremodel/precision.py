"""What a network computes in; its weights and all around it stay in the model's own type."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Precision", "autocast", "resolve_precision", "without_autocast"]

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return what a network computes in on `device`.

    "auto" is bfloat16 on a CUDA card that has it in hardware, and float32 elsewhere: a card that only
    emulates it is slower by it.
    """
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    with nullcontext() if device.index is None else torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a network on `device` computes in `precision`, see `resolve_precision`.

    In float32 it is no context at all: whoever calls may be in one of their own.
    """
    if resolve_precision(precision, device) == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves in its own type what is computed from x."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()
