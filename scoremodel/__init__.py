"""Score-based generative models: forward SDEs, denoisers, losses, samplers and their oracles.

The library knows no pipeline: tensors in, tensors out.

>>> import scoremodel
>>> model = scoremodel.load("artifacts/models/digits-ve-0.safetensors")
>>> images = scoremodel.sample(model, scoremodel.Heun(steps=18), count=16, seed=0).x
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremodel.denoiser import Denoiser, load, save
    from scoremodel.samplers import EulerMaruyama, Heun, Sampler, sample
    from scoremodel.sde import SDE, VE, VP, SubVP

__all__ = [
    "SDE",
    "VE",
    "VP",
    "Denoiser",
    "EulerMaruyama",
    "Heun",
    "Sampler",
    "SubVP",
    "load",
    "sample",
    "save",
]

# Imported on first use: a process that only reads parameters should not pay for torch.
_HOME = {
    **dict.fromkeys(("SDE", "VE", "VP", "SubVP"), "scoremodel.sde"),
    **dict.fromkeys(("Denoiser", "load", "save"), "scoremodel.denoiser"),
    **dict.fromkeys(("EulerMaruyama", "Heun", "Sampler", "sample"), "scoremodel.samplers"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scoremodel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
