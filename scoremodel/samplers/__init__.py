"""Samplers: from the prior back to the data, by the reverse SDE or the probability-flow ODE."""

from __future__ import annotations

from scoremodel.samplers.base import GRIDS, Sampler, Samples, sample
from scoremodel.samplers.heun import Heun, StochasticHeun
from scoremodel.samplers.langevin import AnnealedLangevin, Langevin, langevin
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler, RungeKutta
from scoremodel.samplers.reverse_sde import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
)

__all__ = [
    "DDIM",
    "GRIDS",
    "SAMPLERS",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "SDEDPMSolver",
    "Sampler",
    "Samples",
    "StochasticHeun",
    "langevin",
    "sample",
]

SAMPLERS: dict[str, type[Sampler]] = {
    cls.kind: cls
    for cls in (
        AnnealedLangevin,
        Ancestral,
        DDIM,
        DPMSolver,
        Euler,
        EulerMaruyama,
        Heun,
        Langevin,
        PredictorCorrector,
        ReverseDiffusion,
        RungeKutta,
        SDEDPMSolver,
        StochasticHeun,
    )
}
"""The samplers by the name that configurations use."""
