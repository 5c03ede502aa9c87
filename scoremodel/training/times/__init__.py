"""At which times, that is noise levels, a denoiser is trained.

All but `Uniform` and `Single` are stratified: from u_i = (u_0 + i / count) mod 1 with one
u_0 ~ U(0, 1), so that every batch covers all noise levels evenly, which takes the times' own variance
out of its loss. Each u_i is uniform by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.training.times.base import TIMES, Times
    from scoremodel.training.times.importance import Importance
    from scoremodel.training.times.log_normal import LogNormal
    from scoremodel.training.times.single import Single
    from scoremodel.training.times.uniform import Stratified, Uniform

__all__ = ["TIMES", "Importance", "LogNormal", "Single", "Stratified", "Times", "Uniform"]

__getattr__, __dir__ = lazy(__name__)
