"""Samplers: from the prior back to the data, by the reverse SDE or the probability-flow ODE."""

from __future__ import annotations

from scoremodel.samplers.base import GRIDS, Sampler, Samples, sample
from scoremodel.samplers.probability_flow import Euler, Heun
from scoremodel.samplers.reverse_sde import EulerMaruyama

__all__ = ["GRIDS", "SAMPLERS", "Euler", "EulerMaruyama", "Heun", "Sampler", "Samples", "sample"]

SAMPLERS: dict[str, type[Sampler]] = {cls.kind: cls for cls in (EulerMaruyama, Euler, Heun)}
"""The samplers by the name that configurations use."""
