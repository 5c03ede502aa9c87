"""Blocks of `params.yaml` made from the library's own classes: each parameter is described once, there.

Names, types, bounds (`scoremodel.bounds`), defaults and descriptions (a docstring's `Args:`) are the
class's; what a class says in `__post_init__` is asked by making one.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import docstring_parser
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from scoremodel.bounds import Bounds
from scoremodel.registry import Registry

__all__ = ["Strict", "block", "described", "kinds"]


class Strict(BaseModel):
    """A block of keys: no other ones, no other types, never changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def described(cls: type) -> dict[str, str]:
    """Return what a class, or one that it inherits from, says of each of its parameters.

    Args:
        cls: a class with Google-style docstrings.

    Returns:
        Parameter → its description, in one line.
    """
    found: dict[str, str] = {}
    for base in reversed(inspect.getmro(cls)):
        for param in docstring_parser.parse(base.__doc__ or "").params:
            found[param.arg_name] = " ".join((param.description or "").split())
    return found


def block(
    cls: type,
    base: type[BaseModel] = Strict,
    *,
    kind: str | None = None,
    leave_out: Iterable[str] = (),
    nullable: Iterable[str] = (),
    types: dict[str, Any] | None = None,
    check: bool = True,
) -> type[BaseModel]:
    """Return the block of keys from which a library's class is made.

    Args:
        cls: a dataclass, or a module whose `__init__` has the parameters.
        base: what else the block has.
        kind: value of the key `kind`, None for a block without that key.
        leave_out: parameters that are no keys, because they follow from the data.
        nullable: parameters that may be null too: they follow from the data then.
        types: other types than the class's own.
        check: whether to make the class to see what it says of the values together.

    Returns:
        A pydantic model of the same name.
    """
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        defaults = {
            one.name: one.default if one.default_factory is dataclasses.MISSING else ...
            for one in dataclasses.fields(cls)
        }
    else:
        hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
        signature = inspect.signature(cls).parameters
        defaults = {name: one.default for name, one in signature.items()}
    said = described(cls)
    fields: dict[str, Any] = {}
    if kind is not None:
        fields["kind"] = (Literal[kind], ...)
    for name, default in defaults.items():
        if name in leave_out:
            continue
        annotation = (types or {}).get(name) or _converted(hints[name])
        if name in nullable:
            annotation = annotation | None
        missing = default in (..., dataclasses.MISSING, inspect.Parameter.empty)
        if isinstance(default, tuple):
            default = list(default)
        fields[name] = (annotation, Field(... if missing else default, description=said.get(name)))

    def agrees(given: BaseModel) -> BaseModel:
        parameters = {name: getattr(given, name) for name in defaults if name not in leave_out}
        if None in [parameters[name] for name in nullable]:
            return given  # not known before the data are
        try:
            cls(**parameters)
        except (ValueError, TypeError) as error:
            raise PydanticCustomError("made", "{said}", {"said": str(error)}) from None
        return given

    validators: dict[str, Any] = {"agrees": model_validator(mode="after")(agrees)} if check else {}
    model: type[BaseModel] = create_model(
        cls.__name__, __base__=base, __validators__=validators, **fields
    )
    model.__doc__ = (inspect.getdoc(cls) or "").split("\n")[0]
    return model


def kinds(registry: Registry[Any], make: Callable[[str, type], type[BaseModel]]) -> Any:
    """Return the union of the blocks of a registry's kinds, told apart by the key `kind`.

    Args:
        registry: the kinds.
        make: from a kind and its class to its block.

    Returns:
        An annotation.
    """
    models = tuple(make(kind, registry[kind]) for kind in registry)
    return Annotated[Union[models], Field(discriminator="kind")]  # noqa: UP007


def _converted(annotation: Any) -> Any:
    """Return a library's annotation in pydantic's terms: bounds as constraints, tuples as lists."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *notes = inside
        constraints: list[Any] = []
        for note in notes:
            if isinstance(note, Bounds):
                number = _number(inner)
                given: dict[str, Any] = {
                    key: number(getattr(note, key))
                    for key in ("gt", "ge", "lt", "le")
                    if getattr(note, key) is not None
                }
                if number is float:
                    given["allow_inf_nan"] = False
                if given:
                    constraints.append(Field(**given))
                if note.above is not None:
                    constraints.append(_above(note.above))
            else:
                constraints.append(note)
        return Annotated[(_converted(inner), *constraints)]
    if origin is tuple:
        return list[_converted(inside[0])]  # type: ignore[misc]
    if origin in (Union, types.UnionType):
        return Union[tuple(_converted(one) for one in inside)]  # noqa: UP007
    return annotation


def _number(annotation: Any) -> Any:
    return next((one for one in get_args(annotation) if one is not type(None)), annotation)


def _above(other: str) -> AfterValidator:
    def check(value: float | None, info: ValidationInfo) -> float | None:
        low = info.data.get(other)
        if low is not None and value is not None and value <= low:
            raise PydanticCustomError(
                "above",
                "a number greater than {other} ({low})",
                {"other": other, "low": f"{low:g}"},
            )
        return value

    return AfterValidator(check)
