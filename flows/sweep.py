"""The flow `sweep`: presets, a grid or a list of parameter overrides as DVC experiments."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.local import StageFailedError
from flows.parameters import Branch, Configurations, Name, RemoteUrl, Repository, combinations
from flows.run import at_work, carry_out, pedigree, run_name
from flows.trials import check, collect, keep, named, publish_rows, run_trials
from tasks.params.presets import overrides

__all__ = ["sweep"]


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
        trials = named(name, combinations(grid, [*runs, *map(overrides, presets)]), root)
        check(trials)
        with at_work():
            done, failed = run_trials(root, trials, jobs, said, stop)
            if done:
                collect()
                publish_rows({key: trials[key] for key in done}, "sweep")
                keep(root, sorted(done), push, commit_to, stop)
            if failed:
                raise StageFailedError("; ".join(failed.values()))
            return sorted(done)

    return carry_out(act, repository, branch, remote, commit_to, "sweep")
