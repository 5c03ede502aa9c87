"""Which values a parameter may have, said once: where the parameter is a dataclass's field.

    @dataclass(frozen=True)
    class VE:
        sigma_min: Positive = 0.02
        sigma_max: Annotated[float, Bounds(le=1e6, above="sigma_min")] = 100.0

        def __post_init__(self) -> None:
            check_bounds(self)

Whoever builds a schema of such classes finds the same bounds in the annotations. Every number has an
upper bound too: where none is sensible for the method, it is what single precision can square, or what
a machine can count through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = [
    "Bounds",
    "Count",
    "Length",
    "NonNegative",
    "Positive",
    "Share",
    "Size",
    "Steps",
    "Tolerance",
    "Unit",
    "Width",
    "check_arguments",
    "check_bounds",
    "shown",
]

_WIDEST = 80


def shown(value: Any) -> str:
    """Return a value as an error says it: in one line, its control characters escaped, cut at 80."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "an integer of thousands of digits"
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


@dataclass(frozen=True)
class Bounds:
    """The bounds of a number, which must be finite too.

    Args:
        gt: it must be greater than this.
        ge: it must be at least this.
        lt: it must be less than this.
        le: it must be at most this.
        above: name of another field, than which it must be greater.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    above: str | None = None

    def words(self, whole: bool) -> str:
        """Return the bounds that need no other field in words; `whole` is for integers."""
        what = "an integer" if whole else "a number"
        if self.ge is not None and self.le is not None:
            return f"{what} from {_said_as(self.ge)} to {_said_as(self.le)}"
        words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
        parts = [
            f"{text} {_said_as(getattr(self, name))}"
            for name, text in words.items()
            if getattr(self, name) is not None
        ]
        return f"{what} {' and '.join(parts)}" if parts else f"a finite {what.split()[1]}"

    def refused(self, value: float, whole: bool, others: Mapping[str, Any]) -> str | None:
        """Return in words what is allowed if `value` is not, else None.

        Args:
            value: the number.
            whole: whether it is an integer, for the words.
            others: name → value of the fields beside it, as far as they are known.

        Returns:
            Such as "a number greater than sigma_min (0.02)", or None.
        """
        held = (
            -math.inf < value < math.inf
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )
        if not held:
            return self.words(whole)
        what = "an integer" if whole else "a number"
        low = others.get(self.above or "")
        if low is not None and value <= low:
            return f"{what} greater than {self.above} ({_said_as(low)})"
        return None


@dataclass(frozen=True)
class Length:
    """How many items a list has.

    Args:
        ge: at least so many.
        le: at most so many.
        distinct: whether all differ, numbers by the 15 digits that files say them with.
    """

    ge: int = 0
    le: int = 1000
    distinct: bool = False

    def refused(self, values: Sequence[Any]) -> str | None:
        """Return in words what is allowed if a list is not, else None."""
        if not self.ge <= len(values) <= self.le:
            return f"a list of {self.ge} to {self.le:,} items"
        said = {f"{one:.15g}" if isinstance(one, float) else one for one in values}
        return "a list without repetitions" if self.distinct and len(said) < len(values) else None


def _said_as(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


Positive = Annotated[float, Bounds(ge=1e-12, le=1e12)]
"""A number whose square, and that square's inverse, single precision has."""
NonNegative = Annotated[float, Bounds(ge=0, le=1e12)]
Share = Annotated[float, Bounds(ge=0, lt=1)]
Unit = Annotated[float, Bounds(ge=0, le=1)]
Width = Annotated[float, Bounds(ge=1e-3, le=0.28)]
"""Of a power-function average, relative to its training's length: an average of equal parts has 12^(−½)."""
Tolerance = Annotated[float, Bounds(ge=1e-14, le=1)]
"""Of a solver: double precision ends at 2e-16, and beyond 1 nothing is solved."""
Count = Annotated[int, Bounds(ge=1, le=10**9)]
"""Of what is done one after the other and takes time only."""
Steps = Annotated[int, Bounds(ge=1, le=100_000)]
"""Of what has coefficients in memory, such as a sampler's steps."""
Size = Annotated[int, Bounds(ge=1, le=65_536)]
"""Of an array's axis, such as a layer's width."""


@cache
def _said(annotated: Any) -> dict[str, Any]:
    """Return each name's annotation, of a dataclass's fields or of a function's arguments."""
    hints = get_type_hints(annotated, include_extras=True)
    names = [f.name for f in fields(annotated)] if is_dataclass(annotated) else list(hints)
    return {name: hints[name] for name in names}


_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "None",
}


def _refused(annotation: Any, value: Any, others: Mapping[str, Any]) -> str | None:
    """Return in words what an annotation allows if `value` is not of it, else None."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *notes = inside
        ours = [note for note in notes if isinstance(note, Bounds | Length)]
        allowed = _refused(inner, value, others)
        if allowed is not None:
            numeric = [one for one in ours if isinstance(one, Bounds)]
            examples = [f"such as {note}" for note in notes if isinstance(note, str)]
            return numeric[0].words(inner is int) if numeric else ", ".join([allowed, *examples])
        refusals = (
            one.refused(value, inner is int, others)
            if isinstance(one, Bounds)
            else one.refused(value)
            for one in ours
        )
        return next((one for one in refusals if one is not None), None)
    if origin in (Union, UnionType):
        found = [_refused(one, value, others) for one in inside]
        return None if None in found else " or ".join(map(str, found))
    if origin is Literal:
        return None if value in inside else ", ".join(map(str, inside))
    if origin in (tuple, Sequence):
        if not isinstance(value, tuple if origin is tuple else tuple | list):
            return "a list"
        refusals = (_refused(inside[0], one, others) for one in value)
        return next((one for one in refusals if one is not None), None)
    wanted = origin or annotation
    if not isinstance(wanted, type) or getattr(wanted, "_is_protocol", False):
        return None
    fits = isinstance(value, int | float if wanted is float else wanted)
    if fits and not (isinstance(value, bool) and wanted in (int, float)):
        return None
    return _WORDS.get(wanted) or f"an instance of {wanted.__name__}"


def _plain(value: Any) -> Any:
    """Return numbers and vectors of numpy and torch as Python's own, and lists as tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _checked(who: str, said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that are not what is said of them until they are Python's own, as such."""
    others = {name: value for name, value in given.items() if isinstance(value, int | float)}
    changed = {}
    for name, value in given.items():
        if name not in said or _refused(said[name], value, others) is None:
            continue
        changed[name] = _plain(value)
        allowed = _refused(said[name], changed[name], others)
        if allowed is not None:
            raise ValueError(f"{who}: {name}: {shown(value)} is not allowed, allowed: {allowed}")
    return changed


def check_bounds(instance: Any) -> None:
    """Refuse a dataclass one of whose fields is not of its type, in its `Bounds`, or one of its `Literal`.

    18.0 is no integer, True no number. Numbers and vectors of numpy and torch
    become Python's own, lists tuples.

    Args:
        instance: the dataclass, from its `__post_init__`.

    Raises:
        ValueError: with the class's kind or name, the field, its value and what is allowed.
    """
    said = _said(type(instance))  # type: ignore[arg-type]
    who = getattr(instance, "kind", type(instance).__name__)
    changed = _checked(who, said, {name: getattr(instance, name) for name in said})
    for name, value in changed.items():
        object.__setattr__(instance, name, value)  # which of a frozen one its own method may


def check_arguments(who: str, function: Any, given: Mapping[str, Any]) -> None:
    """Refuse an argument that is not what the function's annotations say, as `check_bounds` does.

    Args:
        who: whose arguments they are, for the message.
        function: the function, or a class's `__init__`.
        given: the arguments by name; those that the function does not have are its own business.

    Raises:
        ValueError: with the argument, its value and what is allowed.
    """
    _checked(who, _said(function), given)
