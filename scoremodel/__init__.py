"""Score-based generative models: processes, denoisers, losses, samplers and their oracles.

    sde         forward SDEs (VE, VP, cosine VP, sub-VP), their reverse SDE and probability flow
    chains      NCSN's ladder and DDPM's chain, of which VE and VP are the limits
    denoiser    the trained object, its score, preconditioning, classes and guidance
    loss, times, training      score matching, over many noise levels
    samplers    Langevin, reverse SDE, probability-flow ODE: one interface
    flow, likelihood, latents  the probability-flow ODE between data and noise
    inverse     what a model says of data that are known in part
    oracles     Gaussians and mixtures with exact scores
    data, networks, evaluation

The library knows no pipeline: tensors in, tensors out.

Examples:
    >>> import scoremodel
    >>> model = scoremodel.load("artifacts/models/digits-ve-0.safetensors")
    >>> images = scoremodel.sample(model, scoremodel.Heun(steps=18), count=16, seed=0).x
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremodel.processes.chain import DDPM, NCSN
    from scoremodel.denoiser import Denoiser, convert, load, save
    from scoremodel.inverse import posterior, restore
    from scoremodel.latents import decode, encode, interpolate
    from scoremodel.likelihood import bits_per_dim, log_likelihood, uniform_dequantise
    from scoremodel.oracles import Gaussian, GaussianMixture
    from scoremodel.samplers import (
        DDIM,
        Ancestral,
        AnnealedLangevin,
        DPMSolver,
        Euler,
        EulerMaruyama,
        Heun,
        Langevin,
        PredictorCorrector,
        ReverseDiffusion,
        RungeKutta,
        Sampler,
        SDEDPMSolver,
        StochasticHeun,
        langevin,
        sample,
    )
    from scoremodel.processes.sde import SDE, VE, VP, CosineVP, SubVP
    from scoremodel.training.loop import TrainingConfig, train

__all__ = [
    "DDIM",
    "DDPM",
    "NCSN",
    "SDE",
    "VE",
    "VP",
    "Ancestral",
    "AnnealedLangevin",
    "CosineVP",
    "DPMSolver",
    "Denoiser",
    "Euler",
    "EulerMaruyama",
    "Gaussian",
    "GaussianMixture",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "SDEDPMSolver",
    "Sampler",
    "StochasticHeun",
    "SubVP",
    "TrainingConfig",
    "bits_per_dim",
    "convert",
    "decode",
    "encode",
    "interpolate",
    "langevin",
    "load",
    "log_likelihood",
    "posterior",
    "restore",
    "sample",
    "save",
    "train",
    "uniform_dequantise",
]

# Imported on first use: a process that only reads parameters should not pay for torch.
_HOME = {
    **dict.fromkeys(("DDPM", "NCSN"), "scoremodel.processes.chain"),
    **dict.fromkeys(("Denoiser", "convert", "load", "save"), "scoremodel.denoiser"),
    **dict.fromkeys(("posterior", "restore"), "scoremodel.inverse"),
    **dict.fromkeys(("decode", "encode", "interpolate"), "scoremodel.latents"),
    **dict.fromkeys(
        ("bits_per_dim", "log_likelihood", "uniform_dequantise"), "scoremodel.likelihood"
    ),
    **dict.fromkeys(("Gaussian", "GaussianMixture"), "scoremodel.oracles"),
    **dict.fromkeys(("SDE", "VE", "VP", "CosineVP", "SubVP"), "scoremodel.processes.sde"),
    **dict.fromkeys(("TrainingConfig", "train"), "scoremodel.training.loop"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'scoremodel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "scoremodel.samplers")), name)
