"""Score-based generative models: processes, denoisers, losses, samplers and their oracles.

    processes   SDEs (VE, VP, cosine VP, sub-VP), and the chains (NCSN, DDPM) whose limits they are
    denoiser    the trained object, its score, preconditioning, classes and guidance
    training    score matching, over many noise levels
    samplers    Langevin, reverse SDE, probability-flow ODE: one interface
    flow, likelihood, latents  the probability-flow ODE between data and noise
    inverse     what a model says of data that are known in part
    oracles     Gaussians and mixtures with exact scores
    networks, data, evaluation, io

What comes in kinds (`PROCESSES`, `NETWORKS`, `TIMES`, `SAMPLERS`) is chosen by name, and a new kind is
one file with one decorator.

The library knows no pipeline: tensors in, tensors out.

Examples:
    >>> import scoremodel
    >>> model = scoremodel.load("artifacts/models/digits-ve-0.safetensors")
    >>> images = scoremodel.sample(model, scoremodel.Heun(steps=18), count=16, seed=0).x
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.data.pictures import save_grid, show
    from scoremodel.data.scale import quantise, to_unit
    from scoremodel.denoiser import Denoiser
    from scoremodel.evaluation.distance import frechet_distance, kernel_distance, sliced_distance
    from scoremodel.inverse import blur, downsample, mask, posterior, restore
    from scoremodel.io.denoisers import load, save
    from scoremodel.latents import decode, encode, interpolate
    from scoremodel.likelihood import bits_per_dim, dequantise, log_likelihood
    from scoremodel.networks.base import NETWORKS
    from scoremodel.oracles import Gaussian, GaussianMixture
    from scoremodel.parametrisation import convert
    from scoremodel.processes.base import PROCESSES, Process
    from scoremodel.processes.chain import Chain
    from scoremodel.processes.cosine import CosineVP
    from scoremodel.processes.ddpm import DDPM
    from scoremodel.processes.ncsn import NCSN
    from scoremodel.processes.sde import SDE
    from scoremodel.processes.ve import VE
    from scoremodel.processes.vp import VP, SubVP
    from scoremodel.samplers.base import SAMPLERS, GridSampler, Sampler
    from scoremodel.samplers.heun import Heun, StochasticHeun
    from scoremodel.samplers.langevin_dynamics import (
        AnnealedLangevin,
        Langevin,
        unadjusted_langevin,
    )
    from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
    from scoremodel.samplers.probability_flow import Euler, RungeKutta
    from scoremodel.samplers.reverse_sde import (
        DDIM,
        Ancestral,
        EulerMaruyama,
        PredictorCorrector,
        ReverseDiffusion,
    )
    from scoremodel.samplers.sampling import sample
    from scoremodel.training.config import TrainingConfig
    from scoremodel.training.loop import train
    from scoremodel.training.times.base import TIMES

__all__ = [
    "DDIM",
    "DDPM",
    "NCSN",
    "NETWORKS",
    "PROCESSES",
    "SAMPLERS",
    "SDE",
    "TIMES",
    "VE",
    "VP",
    "Ancestral",
    "AnnealedLangevin",
    "Chain",
    "CosineVP",
    "DPMSolver",
    "Denoiser",
    "Euler",
    "EulerMaruyama",
    "Gaussian",
    "GaussianMixture",
    "GridSampler",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "Process",
    "ReverseDiffusion",
    "RungeKutta",
    "SDEDPMSolver",
    "Sampler",
    "StochasticHeun",
    "SubVP",
    "TrainingConfig",
    "__version__",
    "bits_per_dim",
    "blur",
    "convert",
    "decode",
    "dequantise",
    "downsample",
    "encode",
    "frechet_distance",
    "interpolate",
    "kernel_distance",
    "load",
    "log_likelihood",
    "mask",
    "posterior",
    "quantise",
    "restore",
    "sample",
    "save",
    "save_grid",
    "show",
    "sliced_distance",
    "to_unit",
    "train",
    "unadjusted_langevin",
]

__version__ = "0.1.0"

# Imported on first use: a process that only reads parameters should not pay for torch.
__getattr__, __dir__ = lazy(__name__)
