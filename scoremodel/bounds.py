"""Which values a parameter may have, said once: where the parameter is a dataclass's field.

    @dataclass(frozen=True)
    class VE:
        sigma_min: Positive = 0.02
        sigma_max: Annotated[float, Bounds(above="sigma_min")] = 100.0

        def __post_init__(self) -> None:
            check_bounds(self)

Whoever builds a schema of such classes finds the same bounds in the annotations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = [
    "Bounds",
    "Count",
    "NonNegative",
    "Positive",
    "Share",
    "Unit",
    "check_arguments",
    "check_bounds",
]


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

    def allowed(self, owner: Any) -> str:
        """Return the bounds in words; `owner` has the other fields."""
        words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
        parts = [
            f"{text} {getattr(self, name):g}"
            for name, text in words.items()
            if getattr(self, name) is not None
        ]
        if self.above is not None:
            parts.append(f"greater than {self.above} ({getattr(owner, self.above):g})")
        return "a number " + " and ".join(parts)

    def hold(self, value: float, owner: Any) -> bool:
        """Return whether `value` is within the bounds; `owner` has the other fields."""
        return (
            math.isfinite(value)
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
            and (self.above is None or value > getattr(owner, self.above))
        )


Positive = Annotated[float, Bounds(gt=0)]
NonNegative = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, lt=1)]
Unit = Annotated[float, Bounds(ge=0, le=1)]
Count = Annotated[int, Bounds(ge=1)]


@cache
def _said(annotated: Any) -> dict[str, tuple[list[Bounds], tuple[str, ...]]]:
    """Return each name's bounds and choices, as a dataclass or a function's arguments say them."""
    hints = get_type_hints(annotated, include_extras=True)
    names = [f.name for f in fields(annotated)] if is_dataclass(annotated) else list(hints)

    def bounds(annotation: Any) -> list[Bounds]:
        # An optional or a repeated number has its bounds one level down.
        own = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Bounds)]
        return own + [one for inside in get_args(annotation) for one in bounds(inside)]

    def choices(annotation: Any) -> tuple[str, ...]:
        if get_origin(annotation) is Literal:
            return get_args(annotation)
        return tuple(one for inside in get_args(annotation) for one in choices(inside))

    return {name: (bounds(hints[name]), choices(hints[name])) for name in names}


def _check(who: str, said: Any, owner: Any, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        bounds, choices = said.get(name, ((), ()))
        values = value if isinstance(value, tuple | list) else (value,)
        for one in bounds:
            if any(isinstance(v, int | float) and not one.hold(v, owner) for v in values):
                raise ValueError(
                    f"{who}: {name}: {value!r} is not allowed, allowed: {one.allowed(owner)}"
                )
        if choices and isinstance(value, str) and value not in choices:
            raise ValueError(
                f"{who}: {name}: {value!r} is not allowed, allowed: {', '.join(choices)}"
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
    _check(who, said, instance, {name: getattr(instance, name) for name in said})


def check_arguments(who: str, function: Any, given: Mapping[str, Any]) -> None:
    """Refuse an argument out of what the function's annotations say, as `check_bounds` does.

    Args:
        who: whose arguments they are, for the message.
        function: the function, or a class's `__init__`.
        given: the arguments by name; those that the function does not have are its own business.

    Raises:
        ValueError: with the argument, its value and what is allowed.
    """
    _check(who, _said(function), SimpleNamespace(**given), given)
