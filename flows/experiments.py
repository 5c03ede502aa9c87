"""The flows `compare` and `sweep`: DVC experiments in temporary workspaces, gathered into the ledger."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.artifacts import publish_summary, publish_table
from flows.child import DvcFailedError, Say, StageKilledError, run_dvc
from flows.clones import commit_results, default_remote, git, head
from flows.graph import StageNode, stage_graph
from flows.local import Done, StageFailedError, killed, one_gpu
from flows.parameters import (
    Branch,
    Configurations,
    Name,
    RemoteUrl,
    Repository,
    as_overrides,
    combinations,
    overridden,
)
from flows.pipeline import schedule
from flows.progress import Progress
from flows.run import at_work, carry_out, finish, pedigree, run_name
from tasks.files.hashes import content_hash
from tasks.files.layout import LEDGER, TABLE, VERDICT
from tasks.params.presets import overrides
from tasks.results.gather import gather
from tasks.results.history import experiments, records_at
from tasks.results.verdict import verdicts

__all__ = ["compare", "main", "sweep"]

Metric = Literal["held_out", "infinity", "kid"]
_SHOWN = ("dataset", "model", "train_seed", "sampler")


class _Trial:
    """One experiment to run: in which workspace, and with which overrides."""

    # A plain class, see flows.local.Job.
    def __init__(self, root: Path, overrides: list[str], stop: threading.Event) -> None:
        self.root, self.overrides, self.stop = root, overrides, stop


@task(name="experiment", task_run_name="{name} · {revision}", cache_policy=NO_CACHE)
def run_experiment(name: str, revision: str, trial: _Trial) -> Done:
    """Run one DVC experiment in a temporary workspace; one that is known is not run again.

    Args:
        name: its name, which holds a hash of its overrides and of the commit.
        revision: the short commit, for people.
        trial: what to run.

    Returns:
        What became of it.

    Raises:
        StageKilledError: if a stage's process was killed from outside; another try goes on.
        StageFailedError: if DVC reports an error.
    """
    logger, began = get_run_logger(), time.monotonic()
    if name in {one.name for one in experiments()}:
        return Done(name, "up to date")
    logger.info("%s: %s", name, ", ".join(trial.overrides) or "as params.yaml says")
    arguments = ["exp", "run", "--temp", "--name", name]
    for override in trial.overrides:
        arguments += ["--set-param", override]
    with (
        Progress(name, revision) as progress,
        _gpu(trial, logger.info) as environment,
    ):
        try:
            run_dvc(
                arguments,
                trial.root,
                logger.info,
                stop=trial.stop,
                environment=environment,
                watch=progress.follow,
            )
        except StageKilledError as error:
            raise StageKilledError(f"{name}: {error}") from None
        except DvcFailedError as error:
            raise StageFailedError(f"{name}: {error}") from None
    return Done(name, "ran", time.monotonic() - began)


@contextmanager
def _gpu(trial: _Trial, say: Say) -> Iterator[dict[str, str]]:
    """Yield the environment of an experiment: one GPU for all its stages, if one of them wants it."""
    if not any(node.gpus for node in stage_graph(trial.root)):
        yield {}
        return
    with one_gpu(trial.root, say, trial.stop) as environment:
        yield environment


def _run(
    root: Path, trials: dict[str, dict[str, Any]], jobs: int, revision: str, stop: threading.Event
) -> tuple[dict[str, Done], dict[str, str]]:
    """Run experiments, so many side by side."""
    prepared = run_experiment.with_options(
        retries=2, retry_delay_seconds=1, retry_condition_fn=killed
    )

    def submit(node: StageNode) -> PrefectFuture[Done]:
        trial = _Trial(root, as_overrides(trials[node.name]), stop)
        return prepared.submit(node.name, revision, trial)

    def first_done(futures: list[PrefectFuture[Done]]) -> PrefectFuture[Done]:
        return next(iter(as_completed(futures)))

    nodes = [StageNode(name, ()) for name in trials]
    return schedule(nodes, jobs, submit, first_done, halt=stop.set)


def _check(trials: dict[str, dict[str, Any]]) -> None:
    """Check the overrides of all experiments before the first one runs."""
    for values in trials.values():
        overridden(values)


def _names(prefix: str, configurations: Configurations, root: Path) -> dict[str, dict[str, Any]]:
    """Return the experiments by names that say what they are of: the same again has the same name.

    What is not committed is part of it, because DVC takes it along.
    """
    base: dict[str, Any] = {"commit": head(root)}
    if edits := git(root, "diff", "--binary", "HEAD", "--", ".", f":!{LEDGER}"):
        base["edits"] = edits
    return {
        f"{prefix}-{content_hash(base | {'overrides': values})[:8]}": values
        for values in configurations
    }


def _gather() -> None:
    """Bring the experiments' rows into the ledger of the workspace, which is the current folder."""
    logger = get_run_logger()
    lines, agreed = gather()
    for line in lines:
        logger.info("ledger: %s", line)
    if not agreed:
        raise StageFailedError(
            "a result contradicts the ledger: "
            + "; ".join(line for line in lines if "refused" in line)
        )


def _keep(
    root: Path, names: list[str], push: bool, commit_to: str | None, stop: threading.Event
) -> None:
    logger = get_run_logger()
    if push:
        cache = [] if default_remote(root) else ["--no-cache"]
        run_dvc(["exp", "push", *cache, "origin", *names], root, logger.info, stop=stop)
    if commit_to is not None:
        made = commit_results(root, commit_to, f"Rows of {', '.join(names)}")
        logger.info("rows: %s", f"{made} on {commit_to}" if made else "nothing new to commit")


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
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95,
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
        datasets: names under `datasets:`; those that are active by default.
        samplers: names under `samplers:`; those that are active by default.
        metric: which distance decides.
        level: confidence level of the interval.
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
        (name,) = trials = _names("compare", [values], root)
        _check(trials)
        with at_work():
            return measured(root, stop, name, trials, said)

    def measured(
        root: Path,
        stop: threading.Event,
        name: str,
        trials: dict[str, dict[str, Any]],
        said: dict[str, str],
    ) -> list[str]:
        done, failed = _run(root, trials, 1, said["revision"], stop)
        publish_summary(done.values(), failed, said)
        if failed:
            raise StageFailedError("; ".join(failed.values()))
        _gather()
        sentences = [found.sentence for found in verdicts(records_at(name), metric, level)]
        commit = next(one.commit for one in experiments() if one.name == name)
        whole = git(root, "show", f"{commit}:{VERDICT}")
        bullets = "\n".join(f"- {sentence}" for sentence in sentences)
        markdown = f"# {' and '.join(models)}\n\n{bullets}\n\n---\n\n{whole}"
        create_markdown_artifact(markdown, key="verdict", description="which model is better")
        _publish_rows({name: values}, "results")
        get_run_logger().info("\n%s", "\n".join(sentences))
        _keep(root, [name], push, commit_to, stop)
        return sentences

    return carry_out(act, repository, branch, remote, commit_to, "compare")


@flow(
    name="sweep",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
)
def sweep(
    grid: dict[str, list[Any]] = {},  # noqa: B006
    runs: Configurations = [],  # noqa: B006
    presets: list[Name] = [],  # noqa: B006
    jobs: Annotated[int, Field(ge=1, le=64)] = 1,
    name: Name = "sweep",
    repository: Repository | None = None,
    branch: Branch = "main",
    remote: RemoteUrl | None = None,
    push: bool = False,
    commit_to: Branch | None = None,
) -> State[Any]:
    """Run a grid or a list of parameter overrides as DVC experiments; params.yaml stays as it is.

    Args:
        grid: dotted key → values; every combination is run, such as
            {"models.ve.training.steps": [500, 1000]}.
        runs: further experiments, each a dictionary of dotted key → value.
        presets: further experiments, each one of the files in `presets/` by its name.
        jobs: how many run side by side.
        name: what the experiments' names begin with.
        repository: work in a clone of it that is this deployment's own; by default in the folder in
            which the flow was started.
        branch: whose newest commit is checked out in the clone.
        remote: address of the clone's DVC remote; by default the one that the commit names.
        push: whether to push the experiments, with their results, to the repository.
        commit_to: branch to which the ledger's new rows are committed; none by default.

    Returns:
        A state: Completed, with the experiments' names; Failed or Refused, with the reasons.
    """

    def act(root: Path, stop: threading.Event) -> list[str]:
        said = pedigree(root)
        trials = _names(name, combinations(grid, [*runs, *map(overrides, presets)]), root)
        _check(trials)
        with at_work():
            done, failed = _run(root, trials, jobs, said["revision"], stop)
            publish_summary(done.values(), failed, said)
            if done:
                _gather()
                _publish_rows({key: trials[key] for key in done}, "sweep")
                _keep(root, sorted(done), push, commit_to, stop)
            if failed:
                raise StageFailedError("; ".join(failed.values()))
            return sorted(done)

    return carry_out(act, repository, branch, remote, commit_to, "sweep")


def _publish_rows(trials: dict[str, dict[str, Any]], key: str) -> None:
    """Show what the experiments scored, and by which overrides they differ."""
    rows = pd.DataFrame(
        [
            {
                "experiment": name,
                **{f"{override}": str(value) for override, value in values.items()},
                **{part: record[part] for part in _SHOWN},
                "NFE": record["nfe"],
                "to held-out": record["held_out"]["mean"],
                "± std": record["held_out"]["std"],
                "× floor": record["ratio_to_floor"],
            }
            for name, values in trials.items()
            for record in records_at(name)
        ]
    )
    publish_table(rows, key, f"results of {len(trials)} experiments ({TABLE} of each)")
    get_run_logger().info("\n%s", rows.to_string(index=False, float_format="{:.4g}".format))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None


def main() -> None:
    """Run one of the flows from the command line; exit with 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m flows.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="two models over training seeds")
    comparing.add_argument("models", nargs="*", default=["ve", "vp"], help="ve vp by default")
    comparing.add_argument("--train-seeds", nargs="+", type=int, default=[0, 1, 2])
    comparing.add_argument("--datasets", nargs="+")
    comparing.add_argument("--samplers", nargs="+")
    comparing.add_argument("--metric", choices=get_args(Metric), default="held_out")
    comparing.add_argument("--level", type=float, default=0.95)
    sweeping = commands.add_parser("sweep", help="a grid or a list of overrides")
    sweeping.add_argument("--grid", type=_json, default={}, help='{"a.b": [1, 2]}')
    sweeping.add_argument("--runs", type=_json, default=[], help='[{"a.b": 1, "c": 2}]')
    sweeping.add_argument("--presets", nargs="+", default=[], help="names of files in presets/")
    sweeping.add_argument("--jobs", type=int, default=1, help="so many side by side")
    sweeping.add_argument("--name", default="sweep", help="what the experiments are called")
    given = vars(parser.parse_args())
    finish(compare if given.pop("command") == "compare" else sweep, given)


if __name__ == "__main__":
    main()
