"""How numbers are summed up in records. Whoever needs no more than this depends on no metric."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["is_rounding", "record_text", "rounded", "spread"]

_ROUNDING = 1e-9
_PLAIN_LIST = re.compile(
    r"\[\n\s+([^\[\]{}\"]+)\n\s+\]"
)  # a text in JSON has no line break of its own


def rounded(value: float) -> float:
    """Return `value` with six significant digits: more would be the order of a sum."""
    return float(f"{value:.6g}")


def is_rounding(std: float, value: float) -> bool:
    """Return whether a spread is that of rounding: below 1e-9 of its value, or of 1 if that is more."""
    return std < _ROUNDING * max(abs(value), 1.0)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (None of one value) and the values themselves, rounded.

    Args:
        values: the values, at least one.

    Returns:
        "mean", "std", which is 0 where only rounding tells the values apart, and "by_seed".
    """
    mean, std = float(np.mean(values)), None
    if len(values) > 1:
        std = rounded(float(np.std(values, ddof=1)))
        std = 0.0 if is_rounding(std, mean) else std
    return {"mean": rounded(mean), "std": std, "by_seed": [rounded(value) for value in values]}


def record_text(record: dict[str, Any]) -> str:
    """Return a record as JSON whose lists of numbers take a line each, so that changes are short to read.

    Args:
        record: what a stage found.

    Returns:
        Indented JSON that ends with a line break.
    """

    def one_line(found: re.Match[str]) -> str:
        return "[" + " ".join(line.strip() for line in found[1].splitlines()) + "]"

    return _PLAIN_LIST.sub(one_line, json.dumps(record, indent=2)) + "\n"
