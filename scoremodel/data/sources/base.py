"""Where data come from: bundled, generated, torchvision's, a file's, or a folder of images.

Every source gives the same thing, a `RawData`, or raises `ValueError` with one line that names what
is wrong and where. A new one is one file beside this one, with a registered function:

    @SOURCES.register("rings", gives="vectors")
    def load_rings(count: Points, seed: Seed = 0) -> RawData: ...

Its annotations say which arguments are allowed; they are held to them before it is called, and its
data are checked when they are made.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import Bounds, check_arguments, shown
from scoremodel.io.mapped import pieces
from scoremodel.registry import Registry

__all__ = [
    "SOURCES",
    "Points",
    "RawData",
    "Seed",
    "Source",
    "checked_description",
    "load_source",
    "require_memory",
    "require_mixture",
]

Points = Annotated[int, Bounds(ge=1, le=10**8)]
"""How many points a source makes; see `require_memory` too."""
Seed = Annotated[int, Bounds(ge=0, le=2**32 - 1)]
"""What numpy and scikit-learn take for a seed."""

_MIXTURE = ("means", "stds", "weights")
_TYPES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    types.NoneType: "null",
}


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

    Raises:
        ValueError: if they do not fit each other: one line that says what, whatever the source.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None
    levels: int | None
    classes: list[str]
    held_out: NDArray[np.bool_] | None
    source: str
    licence: str
    mixture: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim not in (2, 4) or self.x.size == 0:
            raise ValueError(
                f"gives data of shape {self.x.shape}, allowed: (N, C, H, W) or (N, D), not empty"
            )
        if self.x.ndim == 4:
            _require_levels(self.x, self.levels)
        else:
            _require_vectors(self.x, self.levels)
        for what, array in (("labels", self.labels), ("marks of held-out points", self.held_out)):
            if array is not None and array.shape != self.x.shape[:1]:
                raise ValueError(
                    f"gives {what} of shape {array.shape}, allowed: one for each of its "
                    f"{len(self.x)} data points"
                )
        if self.held_out is not None and self.held_out.dtype != np.bool_:
            raise ValueError(
                f"gives marks of held-out points of type {self.held_out.dtype}, allowed: bool"
            )
        if self.labels is not None:
            _require_labels(self.labels, self.classes)
        if self.mixture is not None:
            require_mixture(self.mixture, dimension=self.x.shape[1])

    @cached_property
    def first_copy(self) -> NDArray[np.intp]:
        """Number of the first data point that has the same values, for each data point."""
        zero = self.x.dtype.type(0)  # −0 + 0 = 0
        digests = bytearray()
        for part in pieces(self.x):
            for one in np.asarray(part):
                digests += blake2b((one + zero).data, digest_size=16).digest()
        _, first, which = np.unique(
            np.frombuffer(digests, dtype="V16"), return_index=True, return_inverse=True
        )
        return first[which]


def _require_levels(x: NDArray[Any], levels: int | None) -> None:
    if x.dtype != np.uint8 or levels is None or not 2 <= levels <= 256:
        raise ValueError(
            f"gives images of type {x.dtype} and {levels} grey levels, allowed: uint8 and 2 to 256"
        )
    if levels < 256 and (highest := max(int(part.max()) for part in pieces(x))) >= levels:
        raise ValueError(
            f"gives a grey level of {highest}, allowed: 0 to {levels - 1}, since it says that there "
            f"are {levels}"
        )


def _require_vectors(x: NDArray[Any], levels: int | None) -> None:
    if x.dtype != np.float32 or levels is not None:
        raise ValueError(
            f"gives vectors of type {x.dtype} and {levels} grey levels, allowed: float32 and None"
        )
    if wrong := len(x) - int(np.isfinite(x).all(axis=1).sum()):
        raise ValueError(f"gives {wrong} of {len(x)} vectors that are not finite")


def _require_labels(labels: NDArray[Any], classes: Sequence[str]) -> None:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"gives labels of type {labels.dtype}, allowed: integers")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise ValueError(
            f"gives labels from {low} to {high}, allowed: 0 to {len(classes) - 1}, the numbers of "
            f"its {len(classes)} classes"
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(f"gives two classes of the name {shown(twice)}, allowed: different names")


def require_mixture(mixture: Mapping[str, Any], dimension: int | None = None) -> None:
    """Refuse what are no parameters of a Gaussian mixture.

    Args:
        mixture: means, stds and weights.
        dimension: of the points, if they are known.

    Raises:
        ValueError: if one is missing, lengths differ, or a number is not finite or not positive.
    """
    if set(mixture) != set(_MIXTURE):
        raise ValueError(f"mixture: has {', '.join(mixture)}, allowed: {', '.join(_MIXTURE)}")
    lengths = [len(mixture[key]) for key in _MIXTURE]
    widths = sorted({len(mean) for mean in mixture["means"]})
    one = len(set(lengths)) == 1 and len(widths) == 1 and widths[0] > 0
    if not one or dimension not in (None, widths[0]):
        raise ValueError(
            "means, stds and weights must have the same length and all means the data's dimension, "
            f"got lengths {lengths[0]}, {lengths[1]} and {lengths[2]}, and dimensions "
            f"{', '.join(map(str, widths)) or 'none'}"
        )
    means, stds, weights = (np.asarray(mixture[key], np.float64) for key in _MIXTURE)
    for key, right, allowed in (
        ("means", np.isfinite(means).all(), "finite numbers"),
        ("stds", np.isfinite(stds).all() and (stds > 0).all(), "finite numbers greater than 0"),
        (
            "weights",
            np.isfinite(weights.sum()) and (weights >= 0).all() and weights.sum() > 0,
            "finite numbers of at least 0, not all of them 0",
        ),
    ):
        if not right:
            raise ValueError(f"{key}: {shown(mixture[key])} is not allowed, allowed: {allowed}")


def require_memory(count: int, dimension: int) -> None:
    """Refuse a number of generated points for which this machine has no memory.

    Args:
        count: number of points.
        dimension: their dimension.

    Raises:
        ValueError: if they take more than half of it while they are made.
    """
    each = 32 * dimension + 32  # twice in float64, and what is added to them
    allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // each
    if count > allowed:
        raise ValueError(
            f"count: {count} is not allowed, allowed: at most {allowed:,} points of dimension "
            f"{dimension}, for which half of this machine's memory suffices"
        )


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
            **arguments: its own, `root` and `path` as `load_source` has them.

        Returns:
            The data.

        Raises:
            ValueError: if an argument is not allowed, or the data cannot be had.
        """


SOURCES: Registry[Source] = Registry("scoremodel.data.sources", "source")
"""The sources that a `source.yaml` can name as its `kind`."""


def checked_description(description: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    """Return the kind that a description names and its arguments, held to what the kind's say.

    Args:
        description: the content of a `source.yaml`.

    Returns:
        The kind, and the arguments by name.

    Raises:
        ValueError: if the kind is unknown, or an argument is unknown, missing or not allowed.
    """
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind not in SOURCES:
        raise ValueError(f"kind: {shown(kind)} is unknown, allowed: {', '.join(SOURCES)}")
    allowed = inspect.signature(SOURCES[kind]).parameters
    for key in arguments:
        if key not in allowed:
            names = ", ".join(allowed) or "none"
            said = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ValueError(f"{said}: unknown key for kind {kind!r}, allowed: {names}")
    for key, parameter in allowed.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ValueError(f"{key}: missing, kind {kind!r} needs it")
    _require_types(kind, SOURCES[kind], arguments)
    check_arguments(kind, SOURCES[kind], arguments)
    return kind, arguments


def load_source(
    description: Mapping[Any, Any],
    base: str | os.PathLike[str] = ".",
    folder: str | os.PathLike[str] | None = None,
) -> RawData:
    """Return the data that a description names: {"kind": one of SOURCES, argument: value, …}.

    Args:
        description: the content of a `source.yaml`.
        base: folder that a relative `root` is relative to.
        folder: folder that a relative `path` is relative to, the `source.yaml`'s; None for `base`.

    Returns:
        The data.

    Raises:
        ValueError: if the kind is unknown, an argument is, or the source cannot be read.
    """
    kind, arguments = checked_description(description)
    for key, place in (("root", base), ("path", base if folder is None else folder)):
        if key in arguments:
            arguments[key] = str(Path(place, arguments[key]))
    return SOURCES[kind](**arguments)


def _require_types(kind: str, function: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse an argument of another type than the function's annotation; numbers must be finite."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    strict = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    hints = get_type_hints(function, include_extras=True)
    for key, value in arguments.items():
        annotation = hints.get(key, Any)
        allowed = None
        try:
            TypeAdapter(annotation, config=strict).validate_python(value)
        except ValidationError:
            allowed = _in_words(annotation)
        if isinstance(value, str) and not value.isprintable():
            allowed = "text without control characters"
        if allowed is not None:
            raise ValueError(f"{kind}: {key}: {shown(value)} is not allowed, allowed: {allowed}")


def _in_words(annotation: Any) -> str:
    """Return what an annotation allows, lists as YAML writes them."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = next((note for note in inside[1:] if isinstance(note, Bounds)), None)
        return bounds.words(inside[0] is int) if bounds else _in_words(inside[0])
    if origin in (list, tuple, Sequence):
        return f"[{_in_words(inside[0])}, …]"
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(one) for one in inside)
    if origin is Literal:
        return ", ".join(map(str, inside))
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))
