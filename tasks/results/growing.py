"""A comparison with more observations in each round, until every verdict decides or a budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from scoremodel.evaluation.comparison import TRAININGS, Claim
from scoremodel.io.checkpoint import Chunks
from tasks.files.git import git
from tasks.files.hashes import content_hash
from tasks.files.layout import VERDICT, Configuration
from tasks.params.overrides import overridden
from tasks.results.history import applications_at, experiments, records_at, resolve
from tasks.results.rounds import (
    Question,
    Round,
    Size,
    Step,
    found_of,
    statement,
    steps,
    total_costs,
)
from tasks.results.rows import measured_seconds
from tasks.results.trials import Trial, base, trials
from tasks.results.verdict import Metric, Verdict, verdicts
from tasks.sample import KEPT

__all__ = ["Growing", "Outcome", "outcome_of"]

_ROUNDS = Path(".scoremodel/compare")


class Outcome(NamedTuple):
    """What a comparison came to.

    Args:
        trial: the last round's experiment.
        sentences: the verdicts, and how it ended.
        markdown: its rounds, for people.
    """

    trial: Trial
    sentences: list[str]
    markdown: str


def outcome_of(trial: Trial, metric: Metric, level: float) -> Outcome:
    """Return what a comparison came to that has measured once.

    Args:
        trial: its experiment.
        metric: which distance decides.
        level: confidence level of the intervals.

    Returns:
        Its verdicts, and what its own `verdict.md` says.
    """
    took, applications = measured_seconds(), applications_at(trial.name)
    found = verdicts(records_at(trial.name), metric, level, seconds=took, applications=applications)
    own = git(Path.cwd(), "show", f"{resolve(trial.name)}:{VERDICT}")
    return Outcome(trial, [one.sentence for one in found], f"---\n\n{own}")


class Growing:
    """A comparison with more observations in each round.

    Args:
        root: the workspace, which is the current folder.
        values: the overrides that all rounds have: models and training seeds at least.
        metric: which distance decides.
        level: confidence level of the intervals.
        of: what is to be decided about; by default what the training seeds are enough for.
        measure: runs an experiment, if it is not known, and brings its rows into the ledger.
        say: takes the lines for people.

    Raises:
        ParamsError: if the overrides are not allowed.
        ValueError: if there are too many trainings for `of`.
    """

    def __init__(
        self,
        root: Path,
        values: dict[str, Any],
        metric: Metric,
        level: float,
        of: Claim | None,
        measure: Callable[[Trial], None],
        say: Callable[[str], None],
    ) -> None:
        self.root, self.measure, self.say = root, measure, say
        self.metric, self.level = metric, level
        enough = len(values["active.train_seeds"]) >= TRAININGS
        if enough and of == "checkpoints":
            raise ValueError(
                f"of: 'checkpoints' is not allowed with {TRAININGS} training seeds or more, whose "
                "verdict is on the methods; allowed: fewer --train-seeds, or methods"
            )
        self.of: Claim = of or ("methods" if enough else "checkpoints")
        params = self.params = overridden(root / "params.yaml", values)
        # All that runs is asked for, so nothing runs by itself that was not.
        first = {
            "active.datasets": params.active.datasets[:1],
            "active.samplers": params.active.samplers[:1],
            "active.external": [],
        }
        self.values = {**first, **values, "checkpoints.keep_samples": True}
        self.start = Size(
            train_seeds=tuple(params.active.train_seeds),
            sampling_seeds=tuple(params.evaluation.sampling_seeds),
        )
        asked = {"metric": metric, "level": level, "of": self.of, **self.values}
        self.path = root / _ROUNDS / f"{content_hash(asked | {'base': base(root)})[:16]}.json"
        self.question = Question(asked=asked)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from asking the same meanwhile.

        Yields:
            Nothing.

        Raises:
            BlockingIOError: if somebody does already.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"{self.path}: another run asks the same; wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def run(self, budget: float) -> Outcome:
        """Go on until it is decided or the budget is spent.

        Args:
            budget: seconds.

        Returns:
            What it came to.
        """
        self.question = Question.read(self.path, self.question.asked)
        rounds = self.question.rounds
        size = rounds[-1].size if rounds else self.start
        while True:
            trial, found = self._round(size)
            undecided = self._undecided(found)
            if not undecided:
                self._forget_samples(size)
                end = "decided"
                break
            ways = steps(statement(undecided[0], self.of), self.of, size, total_costs(found))
            left = budget - self.question.spent
            affordable = [way for way in ways if self._predicted(way) < left]
            if not affordable:
                end = self._next(ways, left)
                break
            size = affordable[0].size
        said = f"{end}, after {len(rounds)} rounds and {self.question.spent:.0f} of {budget:g} s."
        sentences = [*(verdict.sentence for verdict in found), said]
        table = self.question.table()
        shown = table.to_markdown(index=False, floatfmt=".4g")
        # The experiment's own verdict holds at one look, and this look was chosen by what it showed.
        more = (
            f"{shown}\n\nOther intervals and p-values of the last round, in its files and on its page, "
            "hold at one look and are not valid after so many.\n"
        )
        self.say("\n" + table.to_string(index=False, float_format="{:.4g}".format))
        return Outcome(trial, sentences, more)

    def _overrides(self, size: Size) -> dict[str, Any]:
        return self.values | {
            "active.train_seeds": list(size.train_seeds),
            "evaluation.sampling_seeds": list(size.sampling_seeds),
        }

    def _round(self, size: Size) -> tuple[Trial, list[Verdict]]:
        """Observe so much, if it is not known, and note what was found."""
        question = self.question
        (trial,) = trials(self.root, "compare", [self._overrides(size)])
        name = trial.name
        known = name in {one.name for one in experiments()}
        before = question.rounds[-1].size if question.rounds else None
        began = time.monotonic()
        try:
            self.measure(trial)
        finally:
            took = 0.0 if known else time.monotonic() - began
            question.spent += took
            question.write(self.path)
        measured = measured_seconds()
        found = verdicts(
            records_at(name),
            self.metric,
            self.level,
            watched=True,
            seconds=measured,
            applications=applications_at(name),
        )
        if name not in {one.experiment for one in question.rounds}:
            beyond = 0.0
            if (costs := total_costs(found)) is not None:
                since = before or Size(train_seeds=(), sampling_seeds=())
                beyond = max(took - since.seconds_of(size, costs), 0.0)
            noted = [found_of(verdict, self.of) for verdict in found]
            question.rounds.append(
                Round(experiment=name, size=size, found=noted, seconds=took, beyond=beyond)
            )
        question.write(self.path)
        for verdict, one in zip(found, question.rounds[-1].found, strict=True):
            error = "not known" if one.error is None else f"{one.error:.4g}"
            self.say(
                f"{size} trainings × sampling seeds: {verdict.sentence} Standard error {error}; "
                f"{one.answer}; {question.spent:.0f} s spent."
            )
        return trial, found

    def _undecided(self, found: list[Verdict]) -> list[Verdict]:
        answers = [statement(verdict, self.of) for verdict in found]
        return [
            verdict
            for verdict, one in zip(found, answers, strict=True)
            if one is None or one.answer == "undecided"
        ]

    def _predicted(self, way: Step) -> float:
        """Return what a round of this size will take; 0 if that is not known."""
        return 0.0 if way.seconds is None else way.seconds + self.question.rounds[-1].beyond

    def _next(self, ways: list[Step], left: float) -> str:
        """Say what the next round would take, where that is more than is left."""
        cheapest = min(ways, key=self._predicted)
        if cheapest.seconds is None:
            return "undecided"
        return (
            f"undecided: the next round, {cheapest.size} trainings × sampling seeds, takes about "
            f"{self._predicted(cheapest):.0f} s, {max(left, 0):.0f} s are left"
        )

    def _forget_samples(self, size: Size) -> None:
        """Delete the samples that were kept for more rounds."""
        folder = self.root / self.params.checkpoints.folder
        for parts in product(
            self.values["active.datasets"],
            self.values["active.models"],
            size.train_seeds,
            self.values["active.samplers"],
        ):
            for kept in folder.glob(f"samples-{Configuration(*parts).name}-*/{KEPT}"):
                with suppress(BlockingIOError), Chunks(kept.parent) as chunks:
                    chunks.remove()
