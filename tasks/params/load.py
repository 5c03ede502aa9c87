"""Reading `params.yaml`, and the one line that a mistake in it gets."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.params import filled
from tasks.params.errors import Located, ParamsError
from tasks.params.mistakes import mistakes
from tasks.params.schema import Params

__all__ = ["checked", "load_params", "read_yaml"]


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file by the rules of YAML 1.2, under which 1e-05 is a number.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        ParamsError: if there is no such file, or it is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file; run this in the project's folder") from error
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ParamsError(f"{path}{line}: not valid YAML: {problem}") from error


def load_params(path: str | Path = "params.yaml") -> Params:
    """Return the validated parameters, defaults filled in.

    Args:
        path: the file.

    Returns:
        The parameters.

    Raises:
        ParamsError: one line for each mistake: file, dotted key, value, and what is allowed.
    """
    path = Path(path)
    return checked(read_yaml(path), path)


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
    try:
        whole, origins = filled.filled(raw)
        lines = list(_of_defaults(raw, path))
        try:
            params = Params.model_validate(whole)
        except ValidationError as error:
            lines += _lines(path, whole, error.errors(), origins)
        else:
            if wrong := next(mistakes(params), None):
                raise wrong
    except Located as error:
        raise ParamsError(
            f"{path}: {error.key}: {error.value!r} is not allowed, allowed: {error.allowed}"
        ) from None
    if lines:
        raise ParamsError("\n".join(dict.fromkeys(lines)))
    return params


def _of_defaults(raw: Any, path: Path) -> typing.Iterator[str]:
    """Yield what is wrong with `defaults:` as far as no block of models or samplers would show it."""
    if not isinstance(raw, Mapping) or "defaults" not in raw:
        return
    defaults = raw["defaults"]
    if not isinstance(defaults, Mapping):
        yield f"{path}: defaults: {defaults!r} is not allowed, allowed: a block of keys"
        return
    for key, block in defaults.items():
        if key not in ("model", "sampler"):
            yield f"{path}: defaults.{key}: unknown key, allowed: model, sampler"
        elif block is not None and not isinstance(block, Mapping):
            yield f"{path}: defaults.{key}: {block!r} is not allowed, allowed: a block of keys"


def _lines(
    path: Path, raw: Any, errors: list[ErrorDetails], origins: dict[filled.Path, filled.Path]
) -> list[str]:
    """Return "file: dotted.key: value is not allowed, allowed: …", one line for each wrong key."""
    at: dict[filled.Path, list[ErrorDetails]] = {}
    for error in errors:
        at.setdefault(tuple(_keys(raw, error["loc"])), []).append(error)
    misspelt = {keys[:-1] for keys, here in at.items() if here[0]["type"] == "extra_forbidden"}
    lines = []
    for keys, here in at.items():
        dotted = _dotted(origins.get(keys, keys))
        where = f"{path}: {dotted}" if dotted else f"{path}"
        kind = here[0]["type"]
        if kind == "extra_forbidden":
            lines.append(f"{where}: unknown key, allowed: {', '.join(_fields(raw, keys[:-1]))}")
        elif kind == "union_tag_not_found" or kind == "missing":
            if keys[:-1] not in misspelt:
                lines.append(f"{where}: missing" + (" key: kind" if kind != "missing" else ""))
        elif kind == "union_tag_invalid":
            tag, tags = here[0]["ctx"]["tag"], here[0]["ctx"]["expected_tags"]
            lines.append(f"{where}.kind: {tag!r} is not allowed, allowed: {tags}")
        elif kind == "made":
            lines.append(f"{where}: {here[0]['msg']}")
        else:
            allowed = " or ".join(_allowed(error) for error in here)
            lines.append(f"{where}: {here[0]['input']!r} is not allowed, allowed: {allowed}")
    return lines


def _dotted(keys: filled.Path) -> str:
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).lstrip(".")


def _allowed(error: ErrorDetails) -> str:
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a block of keys"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message.removeprefix("a valid ")


def _keys(raw: Any, loc: tuple[int | str, ...]) -> list[int | str]:
    """Return `loc` without the tags that pydantic adds for unions and for a mapping's own keys."""
    keys: list[int | str] = []
    here = raw
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, dict) and (part in here or last) and part != "[key]":
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        else:
            continue
        keys.append(part)
    return keys


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
