"""torch's default generators, from which dropout draws: the CPU's and one device's, no other GPU's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["keeps_default_generators", "seed_default_generators"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def keeps_default_generators(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `function`, which leaves as they were the generators of the CPU and of its model's GPU.

    Its first argument is the model, a `Denoiser`. Without a name torch would keep those of all visible
    GPUs, and set up each of them.
    """

    @functools.wraps(function)
    def keeping(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        device = _device_of(args[0] if args else kwargs.get("denoiser"))
        used = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(used, device_type="cuda"):
            return function(*args, **kwargs)

    return keeping


def _device_of(model: object) -> torch.device:
    """Return a model's device; of what is none the CPU, since the function will refuse it."""
    device: torch.device = getattr(getattr(model, "data_mean", None), "device", torch.device("cpu"))
    return device


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and that of `device`; `torch.manual_seed` would seed every visible GPU's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
