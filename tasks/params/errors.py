"""The errors of mistakes in the parameters."""

from __future__ import annotations

from typing import Any

__all__ = ["Located", "ParamsError"]


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
