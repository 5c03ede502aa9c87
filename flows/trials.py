"""DVC experiments in temporary workspaces, run as Prefect tasks and gathered into the ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed

from flows.artifacts import publish_summary, publish_table
from flows.child import Say, run_dvc
from flows.clones import commit_results, default_remote, git, head
from flows.graph import StageNode, stage_graph
from flows.local import Done, StageFailedError, failures_of, killed, one_gpu
from flows.parameters import Configurations, as_overrides, overridden
from flows.pipeline import schedule
from flows.progress import Progress
from tasks.files.hashes import content_hash
from tasks.files.layout import LEDGER, TABLE
from tasks.results.gather import gather
from tasks.results.history import experiments, records_at

__all__ = ["base", "check", "collect", "keep", "named", "publish_rows", "run_trials"]

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
        failures_of(name),
    ):
        run_dvc(
            arguments,
            trial.root,
            logger.info,
            stop=trial.stop,
            environment=environment,
            watch=progress.follow,
        )
    return Done(name, "ran", time.monotonic() - began)


@contextmanager
def _gpu(trial: _Trial, say: Say) -> Iterator[dict[str, str]]:
    """Yield the environment of an experiment: one GPU for all its stages, if one of them wants it."""
    if not any(node.gpus for node in stage_graph(trial.root)):
        yield {}
        return
    with one_gpu(trial.root, say, trial.stop) as environment:
        yield environment


def run_trials(
    root: Path,
    trials: dict[str, dict[str, Any]],
    jobs: int,
    said: dict[str, str],
    stop: threading.Event,
) -> tuple[dict[str, Done], dict[str, str]]:
    """Run experiments, so many side by side, and show what became of them.

    Args:
        root: the workspace.
        trials: name → overrides.
        jobs: how many run side by side.
        said: the flow's pedigree.
        stop: ends them.

    Returns:
        What became of each that ended well, and the reason of each that failed.
    """
    prepared = run_experiment.with_options(
        retries=2, retry_delay_seconds=1, retry_condition_fn=killed
    )

    def submit(node: StageNode) -> PrefectFuture[Done]:
        trial = _Trial(root, as_overrides(trials[node.name]), stop)
        return prepared.submit(node.name, said["revision"], trial)

    def first_done(futures: list[PrefectFuture[Done]]) -> PrefectFuture[Done]:
        return next(iter(as_completed(futures)))

    nodes = [StageNode(name, ()) for name in trials]
    done, failed = schedule(nodes, jobs, submit, first_done, halt=stop.set)
    publish_summary(done.values(), failed, said)
    return done, failed


def check(trials: dict[str, dict[str, Any]]) -> None:
    """Check the overrides of all experiments before the first one runs.

    Args:
        trials: name → overrides.

    Raises:
        ParamsError: one line for each mistake.
        ValueError: for a key that `params.yaml` does not have.
    """
    for values in trials.values():
        overridden(values)


def base(root: Path) -> dict[str, Any]:
    """Return what all experiments of a workspace begin from: its commit, and what differs from it.

    What is not committed is part of it, because DVC takes it along.
    """
    found: dict[str, Any] = {"commit": head(root)}
    if edits := git(root, "diff", "--binary", "HEAD", "--", ".", f":!{LEDGER}"):
        found["edits"] = edits
    return found


def named(prefix: str, configurations: Configurations, root: Path) -> dict[str, dict[str, Any]]:
    """Return the experiments by names that say what they are of: the same again has the same name.

    Args:
        prefix: what the names begin with.
        configurations: the overrides of each.
        root: the workspace.

    Returns:
        Name → overrides.
    """
    begun = base(root)
    return {
        f"{prefix}-{content_hash(begun | {'overrides': values})[:8]}": values
        for values in configurations
    }


def collect() -> None:
    """Bring the experiments' rows into the ledger of the workspace, which is the current folder.

    Raises:
        StageFailedError: if a row contradicts the ledger.
    """
    logger = get_run_logger()
    lines, agreed = gather()
    for line in lines:
        logger.info("ledger: %s", line)
    if not agreed:
        raise StageFailedError(
            "a result contradicts the ledger: "
            + "; ".join(line for line in lines if "refused" in line)
        )


def keep(
    root: Path, names: list[str], push: bool, commit_to: str | None, stop: threading.Event
) -> None:
    """Push the experiments, and commit the ledger's new rows, as far as that is asked for.

    Args:
        root: the workspace.
        names: the experiments.
        push: whether to push them, with their results, to the repository.
        commit_to: branch to which the rows are committed; None for none.
        stop: ends it.
    """
    logger = get_run_logger()
    if push:
        cache = [] if default_remote(root) else ["--no-cache"]
        run_dvc(["exp", "push", *cache, "origin", *names], root, logger.info, stop=stop)
    if commit_to is not None:
        made = commit_results(root, commit_to, f"Rows of {', '.join(names)}")
        logger.info("rows: %s", f"{made} on {commit_to}" if made else "nothing new to commit")


def publish_rows(trials: dict[str, dict[str, Any]], key: str) -> None:
    """Show what the experiments scored, and by which overrides they differ.

    Args:
        trials: name → overrides.
        key: the artifact's key.
    """
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
