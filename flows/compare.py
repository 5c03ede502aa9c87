"""The flow `compare`: two models over training seeds, once, or with more seeds until it is decided."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.clones import git
from flows.local import StageFailedError
from flows.parameters import Branch, Budget, Name, RemoteUrl, Repository, overridden, seconds
from flows.rounds import Question, Round, Size, Step, found_of, statement, steps, total_costs
from flows.run import at_work, carry_out, pedigree, run_name
from flows.trials import base, check, collect, keep, named, publish_rows, run_trials
from scoremodel.evaluation.comparison import TRAININGS, Claim
from scoremodel.io.checkpoint import Chunks
from tasks.files.hashes import content_hash
from tasks.files.layout import VERDICT, Configuration
from tasks.results.history import applications_at, experiments, records_at
from tasks.results.rows import measured_seconds
from tasks.results.verdict import Metric, Verdict, verdicts
from tasks.sample import KEPT

__all__ = ["compare"]

_ROUNDS = Path(".scoremodel/compare")


@flow(
    name="compare",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def compare(
    models: Annotated[list[Name], Field(min_length=2, max_length=2)] = ["ve", "vp"],  # noqa: B006
    train_seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2],  # noqa: B006
    datasets: list[Name] | None = None,
    samplers: list[Name] | None = None,
    metric: Metric = "held_out",
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95,
    until_decided: bool = False,
    budget: Budget = "1h",
    of: Claim | None = None,
    repository: Repository | None = None,
    branch: Branch = "main",
    remote: RemoteUrl | None = None,
    push: bool = False,
    commit_to: Branch | None = None,
) -> State[Any]:
    """Compare two models over training seeds; the verdict is an artifact, params.yaml stays.

    Args:
        models: two names of blocks under `models:`.
        train_seeds: seeds of their trainings; a sentence about the methods takes three at least.
        datasets: names under `datasets:`; those that are active by default, until decided the first.
        samplers: names under `samplers:`; those that are active by default, until decided the first.
        metric: which distance decides.
        level: confidence level of the interval.
        until_decided: whether to train and sample more until the verdict of each data set and sampler
            decides; the interval is then one that holds at every look.
        budget: wall time after which no round begins that is until decided, such as 90s, 30m, 2h; that of
            all rounds of the same question counts.
        of: what is to be decided about, the methods, of which three trainings or more are compared, or
            these checkpoints; by default what the training seeds are enough for.
        repository: work in a clone of it that is this deployment's own; by default in the folder in
            which the flow was started.
        branch: whose newest commit is checked out in the clone.
        remote: address of the clone's DVC remote; by default the one that the commit names.
        push: whether to push the experiment, with its results, to the repository.
        commit_to: branch to which the ledger's new rows are committed; none by default.

    Returns:
        A state: Completed, with the sentences; Failed or Refused, with the reason.
    """
    values: dict[str, Any] = {"active.models": models, "active.train_seeds": train_seeds}
    if datasets is not None:
        values["active.datasets"] = datasets
    if samplers is not None:
        values["active.samplers"] = samplers

    def act(root: Path, stop: threading.Event) -> list[str]:
        said = pedigree(root)
        if until_decided:
            growing = _Growing(root, said, stop, values, metric, level, of)
            with at_work(), growing.alone():
                name, sentences = growing.run(seconds(budget))
        else:
            (name,) = trials = named("compare", [values], root)
            check(trials)
            with at_work():
                _measure(root, said, stop, trials)
                took = measured_seconds()
                found = verdicts(
                    records_at(name),
                    metric,
                    level,
                    seconds=took,
                    applications=applications_at(name),
                )
                sentences = [one.sentence for one in found]
                _publish(root, name, values, sentences)
        with at_work():
            keep(root, [name], push, commit_to, stop)
        return sentences

    return carry_out(act, repository, branch, remote, commit_to, "compare")


def _measure(
    root: Path, said: dict[str, str], stop: threading.Event, trials: dict[str, dict[str, Any]]
) -> None:
    """Run one experiment, if it is not known, and bring its rows into the ledger."""
    _, failed = run_trials(root, trials, 1, said, stop)
    if failed:
        raise StageFailedError("; ".join(failed.values()))
    collect()


def _publish(
    root: Path, name: str, values: dict[str, Any], sentences: list[str], more: str = ""
) -> None:
    """Show the sentences, and what else there is to say or the experiment's own verdict; its rows."""
    below = more
    if not below:
        commit = next(one.commit for one in experiments() if one.name == name)
        below = f"---\n\n{git(root, 'show', f'{commit}:{VERDICT}')}"
    bullets = "\n".join(f"- {sentence}" for sentence in sentences)
    title = " and ".join(values["active.models"])
    markdown = f"# {title}\n\n{bullets}\n\n{below}"
    create_markdown_artifact(markdown, key="verdict", description="which model is better")
    publish_rows({name: values}, "results")
    get_run_logger().info("\n%s", "\n".join(sentences))


class _Growing:
    """A comparison with more observations in each round, until every verdict decides."""

    def __init__(
        self,
        root: Path,
        said: dict[str, str],
        stop: threading.Event,
        values: dict[str, Any],
        metric: Metric,
        level: float,
        of: Claim | None,
    ) -> None:
        self.root, self.said, self.stop = root, said, stop
        self.metric, self.level = metric, level
        enough = len(values["active.train_seeds"]) >= TRAININGS
        if enough and of == "checkpoints":
            raise ValueError(
                f"of: 'checkpoints' is not allowed with {TRAININGS} training seeds or more, whose "
                "verdict is on the methods; allowed: fewer --train-seeds, or methods"
            )
        self.of: Claim = of or ("methods" if enough else "checkpoints")
        params = self.params = overridden(values)
        # All that runs is asked for, so nothing runs by itself that was not.
        first = {
            "active.datasets": params.active.datasets[:1],
            "active.samplers": params.active.samplers[:1],
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

    def run(self, budget: float) -> tuple[str, list[str]]:
        """Go on until it is decided or the budget is spent.

        Args:
            budget: seconds.

        Returns:
            The last round's experiment, and the sentences.
        """
        self.question = Question.read(self.path, self.question.asked)
        rounds = self.question.rounds
        size = rounds[-1].size if rounds else self.start
        while True:
            name, found = self._round(size)
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
        _publish(self.root, name, self._overrides(size), sentences, more)
        get_run_logger().info("\n%s", table.to_string(index=False, float_format="{:.4g}".format))
        return name, sentences

    def _overrides(self, size: Size) -> dict[str, Any]:
        return self.values | {
            "active.train_seeds": list(size.train_seeds),
            "evaluation.sampling_seeds": list(size.sampling_seeds),
        }

    def _round(self, size: Size) -> tuple[str, list[Verdict]]:
        """Observe so much, if it is not known, and note what was found."""
        question = self.question
        (name,) = trials = named("compare", [self._overrides(size)], self.root)
        known = name in {one.name for one in experiments()}
        before = question.rounds[-1].size if question.rounds else None
        began = time.monotonic()
        try:
            _measure(self.root, self.said, self.stop, trials)
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
            get_run_logger().info(
                "%s trainings × sampling seeds: %s Standard error %s; %s; %.0f s spent.",
                size, verdict.sentence, error, one.answer, question.spent,
            )  # fmt: skip
        return name, found

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
