"""What a metric is: a registered function of one set of samples beside the real data.

    @METRICS.register("spread", label="spread", place=120, better="higher")
    def spread(judged: Judged) -> float: ...

in a file of its own beside this one is in every record, table and report.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scoremodel.evaluation.distance import Features, Moments, moments
from scoremodel.evaluation.manifold import Manifold, manifold
from scoremodel.evaluation.memorisation import Copying, authenticity, copying
from scoremodel.evaluation.reference import Reference
from scoremodel.registry import Registry

__all__ = ["METRICS", "Judged", "Metric", "ordered_metrics"]


@dataclass(frozen=True, eq=False)
class Judged:
    """One set of samples beside the real data, and what several metrics need of it, computed once.

    Args:
        features: the samples' features with shape (N, D).
        real: the real data's side.
        labels: the class that each sample was asked to be of, with shape (N,), if it was.
    """

    features: Features
    real: Reference
    labels: NDArray[np.integer] | None = None

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the samples' features."""
        return moments(self.features, "the samples' features")

    @cached_property
    def manifold(self) -> Manifold:
        """Where the samples and as many held-out points lie in each other's midst."""
        return manifold(self.features, self.real.matched, self.real.neighbours)

    @cached_property
    def authenticity(self) -> NDArray[np.float64]:
        """How far each sample is from the training data, in their own distances, with shape (N,)."""
        return authenticity(self.features, self.real.train)

    @cached_property
    def copying(self) -> Copying:
        """The shares of authentic samples and of copies, beside held-out data's."""
        return copying(self.authenticity, self.real.held_out_ratios)


class Metric(Protocol):
    """A registered function.

    Args:
        kind: its name in records.
        label: its name for people.
        place: its place in tables: the metrics stand in the order of these numbers.
        better: which direction is the good one.
    """

    kind: str
    label: str
    place: int
    better: Literal["lower", "higher"]

    def __call__(self, judged: Judged) -> float:
        """Return one number.

        Args:
            judged: the samples beside the real data.

        Returns:
            The metric's value.

        Raises:
            ValueError: if the features allow none, as the function that it comes from says.
        """


METRICS: Registry[Metric] = Registry("scoremodel.evaluation.metrics", "metric")
"""The metrics by their names in records."""


def ordered_metrics() -> dict[str, Metric]:
    """Return all metrics by name, in the order of their places."""
    return dict(sorted(METRICS.items(), key=lambda item: (item[1].place, item[0])))
