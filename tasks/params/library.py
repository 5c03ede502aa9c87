"""Blocks of `params.yaml` made from the library's own classes: each parameter is described once, there.

Names, types, bounds (`scoremodel.bounds`), defaults and descriptions (a docstring's `Args:`) are the
class's; what a class says in `__post_init__` is asked by making one.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import docstring_parser
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from scoremodel.bounds import Bounds, Length
from scoremodel.registry import Registry

__all__ = ["Items", "Strict", "Within", "block", "described", "kinds"]


class Strict(BaseModel):
    """A block of keys: no other ones, no other types, never changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclasses.dataclass(frozen=True)
class Within:
    """A number's bounds, for pydantic: whatever else stands there is refused in the bounds' own words.

    Args:
        bounds: the bounds.
        whole: whether it is an integer.
    """

    bounds: Bounds
    whole: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._held, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        words = {
            "ge": "minimum",
            "le": "maximum",
            "gt": "exclusiveMinimum",
            "lt": "exclusiveMaximum",
        }
        found = dict(handler(schema))
        limits = {word: getattr(self.bounds, name) for name, word in words.items()}
        return found | {word: limit for word, limit in limits.items() if limit is not None}

    def _held(self, value: Any, inner: Callable[[Any], Any], info: ValidationInfo) -> Any:
        allowed: str | None
        try:
            number = inner(value)
        except ValidationError:  # of another type, or beyond all floats
            number, allowed = None, self.bounds.words(self.whole)
        else:
            allowed = self.bounds.refused(number, self.whole, info.data or {})
        if allowed is not None:
            other = self.bounds.above or ""
            raise PydanticCustomError("bounds", "{allowed}", {"allowed": allowed, "other": other})
        return number


@dataclasses.dataclass(frozen=True)
class Items:
    """How many items a list has, for pydantic, in the length's own words.

    Args:
        length: how many.
    """

    length: Length

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._held, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = dict(handler(schema)) | {"minItems": self.length.ge, "maxItems": self.length.le}
        return found | ({"uniqueItems": True} if self.length.distinct else {})

    def _held(self, values: Any) -> Any:
        allowed = self.length.refused(values)
        if allowed is not None:
            raise PydanticCustomError("bounds", "{allowed}", {"allowed": allowed})
        return values


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
    """Return a library's annotation in pydantic's terms: bounds as validators, tuples as lists."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *notes = inside
        wrapped: dict[type, Callable[[Any], Any]] = {
            Bounds: lambda bounds: Within(bounds, inner is int),
            Length: Items,
        }
        ours = [wrapped.get(type(note), lambda note: note)(note) for note in notes]
        return Annotated[(_converted(inner), *ours)]
    if origin in (tuple, collections.abc.Sequence):
        return list[_converted(inside[0])]  # type: ignore[misc]
    if origin in (Union, types.UnionType):
        # An object that stands beside names is for Python: here it is chosen by one of them.
        written = [one for one in inside if not dataclasses.is_dataclass(_bare(one))]
        return Union[tuple(_converted(one) for one in written)]  # noqa: UP007
    return annotation


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
