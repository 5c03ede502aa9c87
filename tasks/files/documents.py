"""JSON, YAML and tables that a person, a crash or a disk may have damaged, read with their shape."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from scoremodel.io.files import AGAIN, DamagedError
from tasks.params.errors import refusal

__all__ = ["parse_json", "read_json", "read_table", "read_text", "read_yaml", "require_shape"]

_SHOWN = 80


def read_text(path: Path, remedy: str = AGAIN) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        remedy: what to do if it is damaged.

    Returns:
        Its text.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is no regular file, or not UTF-8.
    """
    if path.exists() and not path.is_file():  # a FIFO would wait for somebody to write
        raise DamagedError(path, "no regular file", remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(path, "not UTF-8 text", remedy) from error


def read_json(path: Path, shape: Any = dict[str, Any], remedy: str = AGAIN) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        shape: the type that its content must have, such as a pydantic model; further keys are allowed.
        remedy: what to do if it is damaged.

    Returns:
        The content as it stands in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not JSON, or of another shape.
    """
    return parse_json(read_text(path, remedy), path, shape, remedy)


def parse_json(
    text: str, name: Path | str, shape: Any = dict[str, Any], remedy: str = AGAIN
) -> Any:
    """Return the content of a text in JSON.

    Args:
        text: the text.
        name: what it is called, for errors.
        shape: as `read_json` has it.
        remedy: as `read_json` has it.

    Returns:
        The content as it stands in the text.

    Raises:
        DamagedError: as `read_json`.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        what = f"not JSON{at}" if text.strip() else "empty"
        raise DamagedError(name, what, remedy) from error
    require_shape(content, name, shape, remedy)
    return content


def read_yaml(source: Path | str, name: Path | str, shape: Any, remedy: str) -> Any:
    """Return the content of YAML, by the rules of YAML 1.2.

    Args:
        source: a file, or a text.
        name: what it is called, for errors.
        shape: as `read_json` has it.
        remedy: as `read_json` has it.

    Returns:
        The content as it stands there.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not YAML, or of another shape.
    """
    text = read_text(source, remedy) if isinstance(source, Path) else source
    if "\n<<<<<<< " in f"\n{text}":
        which = f"take one side of it (git checkout --ours {name}), and run dvc repro"
        raise DamagedError(name, "a merge has left conflict marks in it", which)
    try:
        # The reader in C is faster and does not survive many brackets in each other.
        content = YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # ruamel names no one kind for what is not YAML
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise DamagedError(name, f"not YAML{at}", remedy) from error
    require_shape(content, name, shape, remedy)
    return content


def read_table(path: Path, numbers: Collection[str], texts: Collection[str] = ()) -> Any:
    """Return a table that was written as CSV.

    Args:
        path: the file.
        numbers: the columns that must be there and hold numbers, or nothing.
        texts: further columns that must be there.

    Returns:
        A pandas DataFrame.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is no such table.
    """
    import pandas as pd

    try:
        rows = pd.read_csv(path)
    except (ValueError, OverflowError) as error:  # pandas' errors of parsing are ValueErrors
        raise DamagedError(path, "no table") from error
    for column in (*texts, *numbers):
        if column not in rows:
            raise DamagedError(path, f"lacks the column {column!r}")
        if column in numbers and not pd.api.types.is_numeric_dtype(rows[column]):
            wrong = pd.to_numeric(rows[column], errors="coerce").isna() & rows[column].notna()
            said = "" if not wrong.any() else f": {str(rows[column][wrong].iloc[0])[:_SHOWN]!r}"
            raise DamagedError(path, f"column {column!r} holds what is no number{said}")
    return rows


def require_shape(content: Any, name: Path | str, shape: Any, remedy: str = AGAIN) -> None:
    """Refuse a content of another shape.

    Args:
        content: what a file holds.
        name: what it is called, for errors.
        shape: as `read_json` has it.
        remedy: as `read_json` has it.

    Raises:
        DamagedError: naming the first key that is missing or holds something else.
    """
    try:
        _adapter(shape).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))[:_SHOWN]
        said = refusal([first])
        what = f"lacks {where}" if said == "missing" else f"{where}: {said}".removeprefix(": ")
        raise DamagedError(name, what, remedy) from None


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
