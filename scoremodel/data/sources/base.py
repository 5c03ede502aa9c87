"""Where data come from: bundled, generated, torchvision's, or a folder of images.

Every source gives the same thing, a `RawData`, or raises `ValueError` with one line that names what
is wrong and where. A new one is one file beside this one, with a registered function:

    @SOURCES.register("rings", gives="vectors")
    def load_rings(count: int, seed: int = 0) -> RawData: ...
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scoremodel.registry import Registry

__all__ = ["SOURCES", "RawData", "Source", "load_source"]


@dataclass(frozen=True)
class RawData:
    """A data set before it is split.

    Args:
        x: grey levels (uint8) with shape (N, C, H, W), or vectors (float32) with shape (N, D).
        labels: class numbers with shape (N,), or None.
        levels: number of grey levels, None for real values.
        classes: names of the classes, in the order of their numbers.
        held_out: True for the data points of the source's own test split, or None if it has none.
        source: where the data come from, for people.
        licence: the data's licence.
        mixture: means, stds and weights of the Gaussian mixture that the data were drawn from, if
            they were, so that their score is known (`scoremodel.oracles.GaussianMixture`).
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None
    levels: int | None
    classes: list[str]
    held_out: NDArray[np.bool_] | None
    source: str
    licence: str
    mixture: dict[str, Any] | None = None


class Source(Protocol):
    """A registered function, whose arguments are the other keys of a `source.yaml`.

    Args:
        kind: the name by which a `source.yaml` chooses it.
        gives: what its data are, which says what kind of network they take.
    """

    kind: str
    gives: Literal["images", "vectors"]

    def __call__(self, **arguments: Any) -> RawData:
        """Return the data.

        Args:
            **arguments: its own; a relative `root` is relative to the `source.yaml`'s folder.

        Returns:
            The data.

        Raises:
            ValueError: if an argument is not allowed, or the data cannot be had.
        """


SOURCES: Registry[Source] = Registry("scoremodel.data.sources", "source")
"""The sources that a `source.yaml` can name as its `kind`."""


def load_source(description: dict[str, Any], base: str | os.PathLike[str] = ".") -> RawData:
    """Return the data that a description names: {"kind": one of SOURCES, argument: value, …}.

    Args:
        description: the content of a `source.yaml`.
        base: folder that a relative `root` is relative to.

    Returns:
        The data.

    Raises:
        ValueError: if the kind is unknown, an argument is, or the source cannot be read.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in SOURCES:
        raise ValueError(f"kind: {kind!r} is unknown, allowed: {', '.join(SOURCES)}")
    allowed = inspect.signature(SOURCES[kind]).parameters
    for key in arguments:
        if key not in allowed:
            names = ", ".join(allowed) or "none"
            raise ValueError(f"{key}: unknown key for kind {kind!r}, allowed: {names}")
    missing = [
        key
        for key, parameter in allowed.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        raise ValueError(f"{missing[0]}: missing, kind {kind!r} needs it")
    if "root" in arguments:
        arguments["root"] = str(Path(base, arguments["root"]))
    return SOURCES[kind](**arguments)
