"""The flow `sweep`: presets, a grid or a list of parameter overrides as DVC experiments."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.hand import Where
from flows.run import at_work, carry_out, run_name
from flows.stages import StageFailedError
from flows.trials import Experiments, publish_rows
from tasks.params.asked import Branch, Configurations, Name, Patience, RemoteUrl, Repository
from tasks.params.overrides import combinations
from tasks.params.presets import overrides
from tasks.results.trials import trials

__all__ = ["sweep"]


@flow(
    name="sweep",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=256),  # type: ignore[arg-type]
)
def sweep(
    grid: dict[str, list[Any]] = {},  # noqa: B006
    runs: Configurations = [],  # noqa: B006
    presets: list[Name] = [],  # noqa: B006
    name: Name = "sweep",
    executor: Literal["local", "workers"] = "local",
    repository: Repository | None = None,
    branch: Branch = "main",
    remote: RemoteUrl | None = None,
    push: bool = False,
    commit_to: Branch | None = None,
    patience: Patience = 600.0,
) -> State[Any]:
    """Run a grid or a list of parameter overrides as DVC experiments; params.yaml stays as it is.

    Args:
        grid: dotted key → values; every combination is run, such as
            {"models.ve.training.steps": [500, 1000]}.
        runs: further experiments, each a dictionary of dotted key → value.
        presets: further experiments, each one of the files in `presets/` by its name.
        name: what the experiments' names begin with.
        executor: "local": all stages here, side by side within cores and GPUs; "workers": a stage with a
            `meta: pool` by a worker of that pool. What several experiments share runs once.
        repository: work in a worktree of it that is this run's own; by default in the folder in which
            the flow was started.
        branch: whose newest commit is checked out there.
        remote: address of its DVC remote; by default the one that the commit names.
        push: whether to push the experiments, with their results, to the repository.
        commit_to: branch to which the ledger's new rows are committed; none by default.
        patience: seconds to wait for a worker before a stage is given up.

    Returns:
        A state: Completed, with the experiments' names; Failed or Refused, with the reasons.
    """

    def act(root: Path, stop: threading.Event) -> list[str]:
        experiments = Experiments(root, stop, Where(executor, repository, remote, patience))
        wanted = trials(root, name, combinations(grid, [*runs, *map(overrides, presets)]))
        done, failed = experiments.run(wanted)
        with at_work():
            # Before anything is shown: the server may be away.
            if done:
                experiments.keep(done, push, commit_to)
            experiments.publish_summary()
            if done:
                publish_rows({one.name: one for one in wanted if one.name in done}, "sweep")
            if failed:
                raise StageFailedError("; ".join(failed.values()))
            return sorted(done)

    return carry_out(act, repository, branch, remote, commit_to)
