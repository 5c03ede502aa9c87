"""A forward process, from its block of `params.yaml`."""

from __future__ import annotations

from torch import Tensor

from scoremodel.processes.chain import NCSN, process_from_config
from scoremodel.processes.sde import Process
from tasks import params

__all__ = ["build_process"]


def build_process(block: params.Process, data: Tensor | None = None) -> Process | None:
    """Return the forward process that a block describes.

    Args:
        block: a model's `sde:`, or a sampler's `path:`.
        data: the training data in [−1, 1] with shape (N, *), from which NCSNv2's rules take what
            the block leaves open.

    Returns:
        The process, or None if it depends on data that are not given.
    """
    config = block.model_dump()
    if None in config.values():
        if data is None:
            return None
        ruled = NCSN.from_data(data, config["sigma_min"], config["sigma_max"])
        config |= {"sigma_max": ruled.sigma_max, "levels": config["levels"] or ruled.levels}
    return process_from_config(config)
