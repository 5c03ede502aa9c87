"""The flow `compare`: two models over training seeds, once, or with more seeds until it is decided."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import get_run_logger
from pydantic import Field

from flows.artifacts import publish
from flows.form import asked
from flows.run import at_work
from flows.stages import At, StageFailedError
from flows.trials import Experiments, publish_rows
from scoremodel.evaluation.comparison import Claim
from tasks.params.asked import Budget, Name, Seed, seconds
from tasks.results.growing import Growing, Outcome, outcome_of
from tasks.results.trials import Trial, trials
from tasks.results.verdict import Metric

__all__ = ["compare"]


@asked
def compare(
    at: At,
    models: Annotated[list[Name], Field(min_length=2, max_length=2)] = ["ve", "vp"],  # noqa: B006
    train_seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2],  # noqa: B006
    datasets: list[Name] | None = None,
    samplers: list[Name] | None = None,
    metric: Metric = "held_out",
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95,
    until_decided: bool = False,
    budget: Budget = "1h",
    of: Claim | None = None,
) -> list[str]:
    """Compare two models over training seeds; the verdict is an artifact, params.yaml stays.

    Args:
        at: where, and how.
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

    Returns:
        The sentences.
    """
    values: dict[str, Any] = {"active.models": models, "active.train_seeds": train_seeds}
    values |= {"active.datasets": datasets} if datasets is not None else {}
    values |= {"active.samplers": samplers} if samplers is not None else {}
    runs = Experiments(at)

    def measure(trial: Trial) -> None:
        _, failed = runs.run([trial])
        if failed:
            raise StageFailedError("; ".join(failed.values()))

    if until_decided:
        say = get_run_logger().info
        growing = Growing(at.root, values, metric, level, of, measure, say)
        with at_work(), growing.alone():
            found = growing.run(seconds(budget))
    else:
        (trial,) = trials(at.root, "compare", [values])
        measure(trial)
        with at_work():
            found = outcome_of(trial, metric, level)
    with at_work():
        runs.conclude([found.trial.name])
        _publish(found)
    return found.sentences


def _publish(found: Outcome) -> None:
    """Show the sentences and what else there is to say; the experiment's rows."""
    bullets = "\n".join(f"- {sentence}" for sentence in found.sentences)
    title = " and ".join(found.trial.values["active.models"])
    publish(f"# {title}\n\n{bullets}\n\n{found.markdown}", "verdict", "which model is better")
    publish_rows([found.trial], "results")
    get_run_logger().info("\n%s", "\n".join(found.sentences))
