"""Reading `params.yaml`, and the one line that a mistake in it gets."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks.params import filled
from tasks.params.errors import (
    Located,
    ParamsError,
    allowed,
    cut,
    dotted,
    of_names,
    refusal,
    shown,
)
from tasks.params.mistakes import mistakes
from tasks.params.pretrained import explained
from tasks.params.read import DEEPEST, read_yaml
from tasks.params.schema import Params

__all__ = ["checked", "load_params", "read_yaml", "require_plain"]

_NO_BLOCK = ("model_type", "model_attributes_type", "dict_type")


def load_params(path: str | Path = "params.yaml") -> Params:
    """Return the validated parameters, defaults filled in.

    Args:
        path: the file.

    Returns:
        The parameters; active models say what their files say of them.

    Raises:
        ParamsError: one line for each mistake: file, dotted key, value, and what is allowed.
    """
    path = Path(path)
    return explained(checked(read_yaml(path), path))


def require_plain(raw: Any, path: str | Path) -> None:
    """Refuse keys that are no text, characters that cannot be printed, nesting without end, and `${`.

    DVC would put where `${` is what an environment variable holds, and commit it.

    Args:
        raw: the content of a file, or overrides.
        path: what it is called, for errors.

    Raises:
        ParamsError: one line for each text or key that has it.
    """
    lines = []
    for place, value in filled.walk(raw):
        where = f"{path}: {dotted(place)}:" if place else f"{path}:"
        if len(place) > DEEPEST:
            raise ParamsError(f"{where} not allowed, allowed: {DEEPEST} blocks in each other")
        lines += [
            f"{where} key {shown(key)} is not allowed, allowed: text as keys"
            for key in (value if isinstance(value, Mapping) else ())
            if not isinstance(key, str)
        ]
        for text in (value, *place[-1:]):
            if isinstance(text, str) and "${" in text:
                why = "text without ${, which DVC would look up"
            elif isinstance(text, str) and not text.isprintable():
                why = "text without control characters"
            else:
                continue
            lines.append(f"{where} {shown(text)} is not allowed, allowed: {why}")
    if lines:
        raise ParamsError("\n".join(dict.fromkeys(lines)))


def checked(raw: Any, path: Path) -> Params:
    """Return the parameters that a file's content says.

    Args:
        raw: the content of a `params.yaml`.
        path: what the file is called, for errors.

    Returns:
        The parameters.

    Raises:
        ParamsError: as `load_params`.
    """
    require_plain(raw, path)
    try:
        whole, origins = filled.filled(raw)
        lines = list(_of_defaults(raw, path))
        try:
            params = Params.model_validate(whole)
        except ValidationError as error:
            lines += _lines(path, whole, error.errors(), origins, bool(lines))
        else:
            if wrong := next(mistakes(params), None):
                raise wrong
    except Located as error:
        raise ParamsError(f"{path}: {error}") from None
    if lines:
        raise ParamsError("\n".join(dict.fromkeys(lines)))
    return params


def _of_defaults(raw: Any, path: Path) -> typing.Iterator[str]:
    """Yield what is wrong with `defaults:` as far as no block of models or samplers would show it."""
    if not isinstance(raw, Mapping) or "defaults" not in raw:
        return
    defaults = raw["defaults"]
    if not isinstance(defaults, Mapping):
        yield f"{path}: defaults: {shown(defaults)} is not allowed, allowed: a block of keys"
        return
    for key, block in defaults.items():
        where = f"{path}: {dotted(('defaults', key))}"
        if key not in ("model", "sampler"):
            yield f"{where}: unknown key, allowed: model, sampler"
        elif block is not None and not isinstance(block, Mapping):
            yield f"{where}: {shown(block)} is not allowed, allowed: a block of keys"


def _lines(
    path: Path,
    raw: Any,
    errors: list[ErrorDetails],
    origins: dict[filled.Path, filled.Path],
    without_defaults: bool,
) -> list[str]:
    """Return "file: dotted.key: value is not allowed, allowed: …", one line for each wrong key."""
    at: dict[filled.Path, list[ErrorDetails]] = {}
    for error in errors:
        at.setdefault(tuple(_keys(raw, error)), []).append(error)
    misspelt = {keys[:-1] for keys, here in at.items() if here[0]["type"] == "extra_forbidden"}
    without_defaults |= () in misspelt or any(error["type"] in _NO_BLOCK for error in errors)
    kindless = {
        origins.get(keys, keys)
        for keys, here in at.items()
        if here[0]["type"] == "union_tag_not_found"
    }
    lines = []
    for keys, here in at.items():
        here = [error for error in here if error["loc"][-1:] == ("[key]",)] or here
        origin = origins.get(keys, keys)
        if origin and origin[:-1] in kindless:  # which keys it may have is not known
            continue
        block = isinstance(here[0]["input"], list | dict)
        if block and any(one[: len(keys)] == keys and one != keys for one in at):
            continue  # one of its items is wrong, in the form that it has
        where = f"{path}: {dotted(origin)}" if origin else f"{path}"
        kind = here[0]["type"]
        if origin[:2] == ("active", "samplers") and keys[0] == "samplers":  # NAME_N
            name, stepless = str(keys[1]).rpartition("_")[0], kind == "extra_forbidden"
            may = ", which has no steps" if stepless else f"_N, N {allowed(here[0])}"
            lines.append(f"{where}: {shown(keys[1])} is not allowed, allowed: {name}{may}")
        elif kind == "extra_forbidden":
            lines.append(
                f"{where}: unknown key, allowed: {cut(of_names(_known(raw, keys, origin)))}"
            )
        elif kind == "union_tag_not_found":
            lines.append(f"{where}: missing key: kind")
        elif kind == "missing":  # for want of another key, or of the defaults as a whole?
            of_defaults = without_defaults and keys[0] in ("models", "samplers")
            if keys[:-1] not in misspelt and not of_defaults:
                lines.append(f"{where}: missing")
        elif kind == "union_tag_invalid":
            chosen = dotted(origins.get((*keys, "kind"), (*keys, "kind")))
            tag, tags = here[0]["ctx"]["tag"], here[0]["ctx"]["expected_tags"]
            lines.append(f"{path}: {chosen}: {shown(tag)} is not allowed, allowed: {cut(tags)}")
        elif kind == "made":
            lines.append(f"{where}: {here[0]['msg']}")
        else:
            lines.append(f"{where}: {_with_place(refusal(here), here[0], keys, origins)}")
    return lines


def _with_place(
    said: str, error: ErrorDetails, keys: filled.Path, origins: dict[filled.Path, filled.Path]
) -> str:
    """Return what is said, with the whole key of the other number where that stands elsewhere."""
    name = error.get("ctx", {}).get("other")
    if not name:
        return said
    other = origins.get((*keys[:-1], name), (*keys[:-1], name))
    if other[:-1] == origins.get(keys, keys)[:-1]:
        return said
    return said.replace(f" {name} (", f" {dotted(other)} (")


def _keys(raw: Any, error: ErrorDetails) -> list[int | str]:
    """Return a mistake's place without the tags that pydantic adds for unions and a mapping's keys."""
    loc = error["loc"]
    keys: list[int | str] = []
    here = raw
    for index, part in enumerate(loc):
        missing = error["type"] == "missing" and index == len(loc) - 1
        if isinstance(here, dict) and (part in here or missing) and part != "[key]":
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        else:
            continue
        keys.append(part)
    return keys


def _known(raw: Any, keys: filled.Path, origin: filled.Path) -> list[str]:
    """Return the keys that may stand beside the last of `keys`, where `origin` says it stands."""
    if origin[0] != "defaults" or len(origin) > 3:
        return _fields(raw, keys[:-1])
    kinds = [_fields(raw, (keys[0], name)) for name in raw[keys[0]]]
    return [
        key
        for key in kinds[0]
        if key not in ("kind", "like") and all(key in kind for kind in kinds)
    ]


def _fields(raw: Any, keys: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the schema allows at the place `keys`."""
    schema: Any = Params
    here = raw
    for key in keys:
        here = here[key]
        inside = schema.model_fields[key].annotation if _is_model(schema) else None
        schema = _choose(inside or typing.get_args(schema)[1], here)
    fields = list(schema.model_fields)
    if not keys:
        return [*fields, "defaults"]
    return [*fields, "like"] if keys[:-1] in (("models",), ("samplers",)) else fields


def _choose(annotation: Any, value: Any) -> Any:
    """Return the one of a union's models that `value` names by its kind, or the annotation itself."""
    models = _models(annotation)
    kind = value.get("kind") if isinstance(value, dict) else None
    for model in models[1:]:
        if kind in typing.get_args(model.model_fields["kind"].annotation):
            return model
    return models[0] if models else annotation


def _models(annotation: Any) -> list[Any]:
    """Return the models in an annotation that is one, or a union of some, Annotated or optional."""
    if typing.get_origin(annotation) is Annotated:
        return _models(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [model for choice in typing.get_args(annotation) for model in _models(choice)]
    return [annotation] if _is_model(annotation) else []


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, BaseModel)
