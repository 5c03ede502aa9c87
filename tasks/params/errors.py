"""The error of a mistake in the parameters."""

from __future__ import annotations

__all__ = ["ParamsError"]


class ParamsError(Exception):
    """A mistake in the parameters, one line for each."""
