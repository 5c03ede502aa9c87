"""How numbers are summed up in records. Whoever needs no more than this depends on no metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["rounded", "spread"]


def rounded(value: float) -> float:
    """Return `value` with six significant digits: more would be the order of a sum."""
    return float(f"{value:.6g}")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (None of one value) and the values themselves, rounded."""
    return {
        "mean": rounded(float(np.mean(values))),
        "std": rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None,
        "by_seed": [rounded(value) for value in values],
    }
