"""Learning-rate schedules by name: each a factor in [0, 1] that follows from the step alone."""

from __future__ import annotations

import math
from typing import Literal, get_args

__all__ = ["Schedule", "schedule_factor"]

Schedule = Literal["constant", "linear", "cosine", "inverse_sqrt", "trapezoid"]

_COOLDOWN = 0.2


def schedule_factor(
    schedule: Schedule, step: int, steps: int, warmup_steps: int, decay_steps: int | None = None
) -> float:
    """Return the learning rate of `step` (0-based) relative to its largest: linear warm-up × the schedule.

    With u = step / steps:

        constant      1
        linear        1 − u
        cosine        (1 + cos π u) / 2                (Loshchilov and Hutter 2017, arXiv:1608.03983)
        inverse_sqrt  min(1, sqrt((d + 1) / (step + 1))), whatever `steps`, with d = decay_steps
                      (Karras et al. 2024, arXiv:2312.02696, whose t_ref it is), or warmup_steps
                      if that is None          (Vaswani et al. 2017, arXiv:1706.03762)
        trapezoid     1, and linearly to zero over the last fifth
                                                       (Hägele et al. 2024, arXiv:2405.18392)
    """
    left = 1 - step / steps
    match schedule:
        case "constant":
            factor = 1.0
        case "linear":
            factor = left
        case "cosine":
            factor = 0.5 * (1 - math.cos(math.pi * left))
        case "inverse_sqrt":
            constant = warmup_steps if decay_steps is None else decay_steps
            factor = min(1.0, math.sqrt((constant + 1) / (step + 1)))
        case "trapezoid":
            factor = min(1.0, left / _COOLDOWN)
        case _:
            allowed = ", ".join(get_args(Schedule))
            raise ValueError(f"unknown schedule {schedule!r}, allowed: {allowed}")
    return factor * min(1.0, (step + 1) / (warmup_steps + 1))
