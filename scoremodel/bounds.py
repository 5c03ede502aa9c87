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
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

__all__ = ["Bounds", "Count", "NonNegative", "Positive", "Share", "Unit", "check_bounds"]


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
def _bounded(cls: type) -> dict[str, list[Bounds]]:
    hints = get_type_hints(cls, include_extras=True)

    def found(annotation: Any) -> list[Bounds]:
        # An optional or a repeated number has its bounds one level down.
        own = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Bounds)]
        return own + [bounds for inside in get_args(annotation) for bounds in found(inside)]

    return {field.name: found(hints[field.name]) for field in fields(cls)}


def check_bounds(instance: Any) -> None:
    """Refuse a dataclass one of whose fields is out of its `Bounds`; None and text have none.

    Args:
        instance: the dataclass, from its `__post_init__`.

    Raises:
        ValueError: with the class's kind or name, the field, its value and what is allowed.
    """
    for name, bounds in _bounded(type(instance)).items():
        value = getattr(instance, name)
        values = value if isinstance(value, tuple | list) else (value,)
        for one in bounds:
            if any(isinstance(v, int | float) and not one.hold(v, instance) for v in values):
                who = getattr(instance, "kind", type(instance).__name__)
                raise ValueError(
                    f"{who}: {name}: {value!r} is not allowed, allowed: {one.allowed(instance)}"
                )
