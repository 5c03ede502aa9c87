"""The errors of mistakes in the parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Doubtful", "Located", "ParamsError"]


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


class Doubtful(NamedTuple):
    """What may be meant, and is worth a line before anything runs.

    Args:
        key: the dotted key to name.
        value: what stands there.
        why: what follows from it, with its number.
    """

    key: str
    value: Any
    why: str
