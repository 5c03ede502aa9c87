"""The errors of mistakes in the parameters, and the words in which they are said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from scoremodel.bounds import shown

__all__ = ["Located", "ParamsError", "allowed", "cut", "dotted", "of_names", "refusal", "shown"]

_PLAIN_KEY = re.compile(r"[\w.${}:-]{1,80}")

_WORDS = {
    "bool_type": "true or false",
    "dict_type": "a block of keys",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "an integer",
    "invalid_key": "a key that is text",
    "list_type": "a list",
    "mapping_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "model_type": "a block of keys",
    "none_required": "null",
    "string_type": "text",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


class ParamsError(Exception):
    """A mistake in the parameters, one line for each."""


class Located(Exception):
    """A mistake that involves two parts of the file; carries its own key.

    Args:
        key: the dotted key to name.
        value: what stands there.
        allowed: what may stand there.
    """

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.value)} is not allowed, allowed: {cut(self.allowed)}"


def dotted(keys: Sequence[Any]) -> str:
    """Return where a value stands, as `a.b[0]`; what is no usual key is quoted."""

    def one(key: Any) -> str:
        if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
            return f".{key}"
        return f"[{key}]" if type(key) is int else f".{shown(key)}"

    return cut("".join(map(one, keys)).lstrip("."), 200)


def cut(text: str, length: int = 250) -> str:
    """Return a text, its end left out where it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def of_names(names: Iterable[str]) -> str:
    """Return names as a list of what is allowed."""
    return ", ".join(names) or "none, there is none"


def allowed(error: ErrorDetails) -> str:
    """Return in our words what one of pydantic's errors says may stand there."""
    kind, said = error["type"], error.get("ctx", {})
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        limit = said[name]
        return f"a number {words} {limit:,}".removesuffix(".0")
    if kind in ("too_short", "too_long"):
        words, name = ("at least", "min") if kind == "too_short" else ("at most", "max")
        return f"a list of {words} {said[f'{name}_length']} items"
    if kind in ("string_too_short", "string_too_long"):
        words, name = ("at least", "min") if kind == "string_too_short" else ("at most", "max")
        return f"text of {words} {said[f'{name}_length']:,} characters"
    if kind == "literal_error":
        return str(said["expected"])
    if kind == "value_error":
        return str(said["error"])
    if kind == "bounds":
        return str(said["allowed"])
    # Such as a number in text, where text is read: "int_parsing" is about what "int_type" is.
    return _WORDS.get(kind) or _WORDS.get(f"{kind.split('_')[0]}_type", "a value of another form")


def refusal(errors: Sequence[ErrorDetails]) -> str:
    """Return what is said of a value after its key, from all that pydantic says of that one value.

    Args:
        errors: one for each form that the value could have.

    Returns:
        "VALUE is not allowed, allowed: …", or what a check said by itself.
    """
    first = errors[0]
    if first["type"] == "extra_forbidden" or first["type"].startswith("unexpected_"):
        return "unknown key"
    if first["type"].startswith("missing"):
        return "missing"
    words = [allowed(error) for error in errors]
    whole = next((one for one in words if " allowed" in one), None)  # an entire line
    return whole or f"{shown(first['input'])} is not allowed, allowed: {cut(' or '.join(words))}"
