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
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

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
Tolerance = Annotated[float, Bounds(ge=1e-14, le=1)]
"""Of a solver: double precision ends at 2e-16, and beyond 1 nothing is solved."""
Count = Annotated[int, Bounds(ge=1, le=10**9)]
"""Of what is done one after the other and takes time only."""
Steps = Annotated[int, Bounds(ge=1, le=100_000)]
"""Of what has coefficients in memory, such as a sampler's steps."""
Size = Annotated[int, Bounds(ge=1, le=65_536)]
"""Of an array's axis, such as a layer's width."""


@cache
def _said(
    annotated: Any,
) -> dict[str, tuple[list[tuple[Bounds, bool]], list[Length], tuple[str, ...]]]:
    """Return each name's bounds, lengths and choices, as a dataclass or a function's arguments say them."""
    hints = get_type_hints(annotated, include_extras=True)
    names = [f.name for f in fields(annotated)] if is_dataclass(annotated) else list(hints)

    def bounds(annotation: Any) -> list[tuple[Bounds, bool]]:
        # An optional or a repeated number has its bounds one level down.
        notes = getattr(annotation, "__metadata__", ())
        own = [(one, get_args(annotation)[0] is int) for one in notes if isinstance(one, Bounds)]
        return own + [one for inside in get_args(annotation) for one in bounds(inside)]

    def choices(annotation: Any) -> tuple[str, ...]:
        if get_origin(annotation) is Literal:
            return get_args(annotation)
        return tuple(one for inside in get_args(annotation) for one in choices(inside))

    def lengths(annotation: Any) -> list[Length]:
        notes = getattr(annotation, "__metadata__", ())
        return [one for one in notes if isinstance(one, Length)]

    return {
        name: (bounds(hints[name]), lengths(hints[name]), choices(hints[name])) for name in names
    }


def _check(who: str, said: Any, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        bounds, lengths, choices = said.get(name, ((), (), ()))
        several = isinstance(value, tuple | list)
        values = value if several else (value,)
        refusals = [one.refused(value) for one in lengths if several]
        refusals += [
            one.refused(number, whole, given)
            for one, whole in bounds
            for number in values
            if isinstance(number, int | float)
        ]
        if choices and isinstance(value, str) and value not in choices:
            refusals.append(", ".join(choices))
        for allowed in refusals:
            if allowed is not None:
                raise ValueError(
                    f"{who}: {name}: {shown(value)} is not allowed, allowed: {allowed}"
                )


def check_bounds(instance: Any) -> None:
    """Refuse a dataclass one of whose fields is out of its `Bounds`, or none of its `Literal`.

    Numbers are held to bounds and text to choices; None has neither.

    Args:
        instance: the dataclass, from its `__post_init__`.

    Raises:
        ValueError: with the class's kind or name, the field, its value and what is allowed.
    """
    said = _said(type(instance))  # type: ignore[arg-type]
    who = getattr(instance, "kind", type(instance).__name__)
    _check(who, said, {name: getattr(instance, name) for name in said})


def check_arguments(who: str, function: Any, given: Mapping[str, Any]) -> None:
    """Refuse an argument out of what the function's annotations say, as `check_bounds` does.

    Args:
        who: whose arguments they are, for the message.
        function: the function, or a class's `__init__`.
        given: the arguments by name; those that the function does not have are its own business.

    Raises:
        ValueError: with the argument, its value and what is allowed.
    """
    _check(who, _said(function), given)
