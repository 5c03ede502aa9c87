"""The flow `sweep`: presets, a grid or a list of parameter overrides as DVC experiments."""

from __future__ import annotations

from typing import Any

from flows.form import asked
from flows.run import at_work
from flows.stages import At, StageFailedError
from flows.trials import Experiments, publish_rows
from tasks.params.asked import Configurations, Name
from tasks.params.overrides import combinations
from tasks.params.presets import overrides
from tasks.results.trials import trials

__all__ = ["sweep"]


@asked
def sweep(
    at: At,
    grid: dict[str, list[Any]] = {},  # noqa: B006
    runs: Configurations = [],  # noqa: B006
    presets: list[Name] = [],  # noqa: B006
    name: Name = "sweep",
) -> list[str]:
    """Run a grid or a list of parameter overrides as DVC experiments; params.yaml stays as it is.

    Args:
        at: where, and how.
        grid: dotted key → values; every combination is run, such as
            {"models.ve.training.steps": [500, 1000]}.
        runs: further experiments, each a dictionary of dotted key → value.
        presets: further experiments, each one of the files in `presets/` by its name.
        name: what the experiments' names begin with.

    Returns:
        The experiments' names.
    """
    experiments = Experiments(at)
    wanted = trials(at.root, name, combinations(grid, [*runs, *map(overrides, presets)]))
    done, failed = experiments.run(wanted)
    with at_work():
        experiments.conclude(done)
        if done:
            publish_rows([one for one in wanted if one.name in done], "sweep")
        if failed:
            raise StageFailedError("; ".join(failed.values()))
        return sorted(done)
