"""A sampler, from its block of `params.yaml`."""

from __future__ import annotations

from scoremodel import samplers
from tasks.params import Sampler

__all__ = ["build_sampler"]


def build_sampler(sampler: Sampler) -> samplers.Sampler:
    """Return the sampler that one block of `params.yaml`'s `samplers:` describes."""
    return samplers.SAMPLERS[sampler.kind](
        **sampler.model_dump(exclude={"kind", "guidance", "path", "ema_half_life"})
    )
