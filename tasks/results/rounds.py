"""A comparison that grows until it decides: its rounds, what they took, and what comes next.

Each round is a DVC experiment with more observations than the one before. What is known of a question
stands in a file that is written after every round; the rest follows from it, so whoever asks again goes
on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel

from scoremodel.evaluation.comparison import TRAININGS, Claim, Comparison
from scoremodel.evaluation.design import Costs, next_steps
from scoremodel.evaluation.intervals import multiplier
from scoremodel.io.files import write_text
from tasks.results.verdict import Verdict

__all__ = [
    "Found",
    "Question",
    "Round",
    "Size",
    "Step",
    "found_of",
    "statement",
    "steps",
    "total_costs",
]

_GROWTH = 1.5  # of the number of sampling seeds, from one round to the next
_LEAST = 2  # sampling seeds more


class Size(BaseModel, frozen=True):
    """How much a round observes.

    Args:
        train_seeds: of the trainings of each model.
        sampling_seeds: of the sets of samples of each training.
    """

    train_seeds: tuple[int, ...]
    sampling_seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{len(self.train_seeds)} × {len(self.sampling_seeds)}"

    def with_trainings(self, more: int) -> Size:
        """Return it with so many training seeds more."""
        return self.model_copy(update={"train_seeds": _longer(self.train_seeds, more)})

    def with_samples(self) -> Size:
        """Return it with half as many sampling seeds more, at least two."""
        more = max(_LEAST, math.ceil((_GROWTH - 1) * len(self.sampling_seeds)))
        return self.model_copy(update={"sampling_seeds": _longer(self.sampling_seeds, more)})

    def seconds_of(self, larger: Size, costs: Costs) -> float:
        """Return what it takes to get from this size to a larger one."""
        j, k = len(larger.train_seeds), len(larger.sampling_seeds)
        before, had = len(self.train_seeds), len(self.sampling_seeds)
        return (j - before) * costs.training + (j * k - before * had) * costs.samples


def _longer(seeds: tuple[int, ...], more: int) -> tuple[int, ...]:
    first = max(seeds, default=-1) + 1
    return (*seeds, *range(first, first + more))


class Found(BaseModel):
    """What a round found on one data set with one sampler; an end that is not finite is None."""

    what: str
    difference: float | None
    low: float | None
    high: float | None
    error: float | None
    answer: str


class Round(BaseModel):
    """One round.

    Args:
        experiment: its DVC experiment.
        size: how much it observed.
        found: what of each data set and sampler that was asked for.
        seconds: wall seconds that it took.
        beyond: those of them that are neither training nor sampling, as far as that is known.
    """

    experiment: str
    size: Size
    found: list[Found]
    seconds: float
    beyond: float = 0.0


class Question(BaseModel):
    """What is known of a question.

    Args:
        asked: the question, for people.
        rounds: its rounds, oldest first.
        spent: wall seconds of all rounds, of those too that were interrupted.
    """

    asked: dict[str, Any]
    rounds: list[Round] = []
    spent: float = 0.0

    @classmethod
    def read(cls, path: Path, asked: dict[str, Any]) -> Question:
        """Return what a file says of the question, or a new one.

        Args:
            path: the file; it need not exist.
            asked: the question.

        Returns:
            The question.

        Raises:
            ValueError: if the file is damaged.
        """
        if not path.exists():
            return cls(asked=asked)
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{path}: damaged; delete it, the experiments are kept") from None

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    def table(self) -> pd.DataFrame:
        """Return the rounds, a row for each data set and sampler that was asked for."""
        return pd.DataFrame(
            [
                {
                    "round": number,
                    "trainings": len(one.size.train_seeds),
                    "sampling seeds": len(one.size.sampling_seeds),
                    "of": found.what,
                    "difference": found.difference,
                    "low": found.low,
                    "high": found.high,
                    "seconds": round(one.seconds, 1),
                    "answer": found.answer,
                }
                for number, one in enumerate(self.rounds, 1)
                for found in one.found
            ]
        )


def statement(verdict: Verdict, of: Claim) -> Comparison | None:
    """Return a verdict's comparison of checkpoints or of methods, the quoted one if it is of these.

    Args:
        verdict: a verdict.
        of: what to speak of.

    Returns:
        The comparison; None if there are too few observations for one.
    """
    quoted = [] if verdict.headline is None else [verdict.headline]
    return next((one for one in [*quoted, *verdict.statements] if one.claim == of), None)


def found_of(verdict: Verdict, of: Claim) -> Found:
    """Return what a verdict says of checkpoints or of methods."""
    what, found = f"{verdict.dataset}, {verdict.sampler}", statement(verdict, of)
    if found is None:
        return Found(
            what=what, difference=None, low=None, high=None, error=None, answer="undecided"
        )
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return Found(
        what=what,
        difference=found.difference,
        low=low,
        high=high,
        error=found.error,
        answer=found.answer,
    )


def total_costs(verdicts: Sequence[Verdict]) -> Costs | None:
    """Return what more of everything that was asked for costs; None if some of it is not known.

    Args:
        verdicts: of one round.

    Returns:
        The costs: samplers share a data set's trainings.
    """
    training: dict[str, float] = {}
    samples = 0.0
    for verdict in verdicts:
        if verdict.costs is None:
            return None
        training[verdict.dataset] = verdict.costs.training
        samples += verdict.costs.samples
    return Costs(sum(training.values()), samples)


class Step(NamedTuple):
    """A way to go on.

    Args:
        size: how much it observes.
        seconds: what that takes; None if it is not known.
    """

    size: Size
    seconds: float | None


def steps(found: Comparison | None, of: Claim, size: Size, costs: Costs | None) -> list[Step]:
    """Return the ways to go on from an undecided round, the one that is worth most first.

    More trainings are no answer to a question about checkpoints. Of methods the better of two ways is
    that whose interval is narrower when both have cost the same.

    Args:
        found: what was found; None if there were too few observations to find anything.
        of: what the question is about.
        size: how much was observed.
        costs: what more costs, None if it is not known.

    Returns:
        One step or two.
    """
    sizes: dict[Literal["samples", "trainings"], Size] = {"samples": size.with_samples()}
    if of == "methods":
        missing = TRAININGS - len(size.train_seeds)
        sizes["trainings"] = size.with_trainings(max(missing, 1))
        if missing > 0:  # nothing can be said before
            del sizes["samples"]
    if costs is None:
        return [Step(sizes[source], None) for source in sorted(sizes, reverse=True)]
    made = {name: Step(to, size.seconds_of(to, costs)) for name, to in sizes.items()}
    if found is None or len(made) == 1:
        return list(made.values())
    # A little more, so that the dearer of the two is a whole step in floating point too.
    spent = 1.000001 * max(step.seconds or 0.0 for step in made.values())
    designs = next_steps(found, costs, spent)

    def width(source: Literal["samples", "trainings"]) -> tuple[float, float]:
        design = designs[source]
        reach = multiplier(found.level, min(design.freedom, 1e6), found.watched) * design.error
        return reach, design.error

    return [made[source] for source in sorted(made, key=width)]
