"""Samplers: from the prior back to the data, by the reverse SDE or the probability-flow ODE.

A sampler of your own is a file with

    @SAMPLERS.register("mine")
    @dataclass(frozen=True)
    class Mine(GridSampler): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.samplers.base import SAMPLERS, GridSampler, Sampler
    from scoremodel.samplers.grid import GRIDS, time_grid
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
    from scoremodel.samplers.sampling import Samples, sample

__all__ = [
    "DDIM",
    "GRIDS",
    "SAMPLERS",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver",
    "Euler",
    "EulerMaruyama",
    "GridSampler",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "SDEDPMSolver",
    "Sampler",
    "Samples",
    "StochasticHeun",
    "sample",
    "time_grid",
    "unadjusted_langevin",
]

__getattr__, __dir__ = lazy(__name__)
