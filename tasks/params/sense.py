"""What is never sensible of a process or a network, and what may be, said with its number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scoremodel.data.scale import bin_width
from scoremodel.processes.base import Process
from tasks.params.errors import Located
from tasks.params.fits import Doubtful, Finding

__all__ = ["STANDARD", "senseless_process"]

STANDARD = 0.5
"""The standard deviation of data that are not known yet: EDM's, for images in [−1, 1]."""

_LEFT = 0.05, 0.5
"""Shares of the data in the prior from which a process is warned of, and refused."""
_SMALLEST = 0.25, 1.0
"""The same of the smallest noise, in standard deviations of the data."""


def senseless_process(
    key: str, process: Process, card: Mapping[str, Any] | None, dataset: str
) -> Iterator[Finding]:
    """Yield why a process does not lead from these data to its prior, or not back to them.

    Args:
        key: where the process stands in params.yaml.
        process: the process.
        card: the data's card, None if it is not known.
        dataset: the data's name.

    Yields:
        One finding at a time.
    """
    std = STANDARD if card is None else float(card["std"])
    of = f"{dataset!r}, whose standard deviation is {std:.3g}" if card else f"data of std {std:g}"
    value = process.config()
    left = process.left_in_prior(std)
    said = f"{left:.3g} of the variance at t = 1 is the data's own"
    if left >= _LEFT[1]:
        allowed = f"noise that hides the data at t = 1; of {of}, {said}, which no prior has"
        yield Located(key, value, allowed)
    elif left >= _LEFT[0]:
        why = f"{said} for {of}, and the prior, from which samples start, has none of it"
        yield Doubtful(key, value, why)
    smallest = process.smallest_ratio()
    share = smallest / std
    said = f"the smallest noise is {smallest:.3g}, {share:.3g} times the standard deviation of"
    whose = f"{dataset!r}, {std:.3g}" if card else f"such data, {std:g}"
    if share >= _SMALLEST[1]:
        yield Located(key, value, f"a smallest noise below the data's own spread; {said} {whose}")
    elif share >= _SMALLEST[0]:
        levels = card["levels"] if card else None
        steps = f" and {smallest / bin_width(levels):.3g} grey levels" if levels else ""
        yield Doubtful(key, value, f"{said} {whose}{steps}: what is finer is not learned")
