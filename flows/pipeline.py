"""The flow `pipeline`: DVC's stages as Prefect tasks, here or on the workers of their pools."""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import publish_results, publish_summary
from flows.hand import Where, handing
from flows.run import at_work, carry_out, finish, pedigree, run_name
from flows.stages import Place, Places, StageFailedError
from tasks.files.dvc import DvcFailedError, persist
from tasks.files.graph import select, stage_graph
from tasks.files.schedule import reasons
from tasks.files.terminal import as_command
from tasks.files.worktree import default_remote
from tasks.params.asked import Branch, Patience, RemoteUrl, Repository, Target
from tasks.results.branch import commit_results

__all__ = ["main", "pipeline"]


@flow(
    name="pipeline",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=256),  # type: ignore[arg-type]
)
def pipeline(
    targets: list[Target] | None = None,
    force: bool = False,
    executor: Literal["local", "workers"] = "local",
    push: bool = False,
    repository: Repository | None = None,
    branch: Branch = "main",
    remote: RemoteUrl | None = None,
    commit_to: Branch | None = None,
    patience: Patience = 600.0,
) -> State[Any]:
    """Bring the pipeline's stages up to date through DVC, and show the verdict and the samples.

    Args:
        targets: stages to run with all they depend on, such as "train" or "train@digits-ve-0"; all
            stages by default.
        force: whether to run stages although nothing changed.
        executor: "local": all stages in the flow's own workspace, side by side within its cores and
            GPUs; "workers": a stage with a `meta: pool` by a worker of that pool.
        push: whether to push everything to the DVC remote at the end.
        repository: work in a worktree of it that is this run's own; by default in the folder in which
            the flow was started. Workers fetch the commit from here too.
        branch: whose newest commit is checked out there.
        remote: address of its DVC remote, the workers' too; by default the one that the commit names
            in .dvc/config.
        commit_to: branch to which dvc.lock and the results are committed at the end, only from a
            worktree; nothing is committed by default.
        patience: seconds to wait for a worker before a stage is given up.

    Returns:
        A state: Completed, with for each stage "ran", "restored" or "up to date"; Failed, with the
        reasons, if a stage failed, and those that do not depend on it have run; Refused, if
        something that was asked for cannot be, and nothing has run.
    """

    def act(root: Path, stop: threading.Event) -> dict[str, str]:
        said, say = pedigree(root), get_run_logger().info
        if push and not default_remote(root)[0]:
            raise ValueError(
                "push: not allowed without a DVC remote (dvc remote add --default NAME ADDRESS, or "
                "the parameter remote), allowed: false"
            )
        if repository is not None and default_remote(root)[0]:
            # Data as well, which no stage makes. What the remote lacks is made.
            with suppress(DvcFailedError):
                persist("dvc pull", ["pull", "--allow-missing", "--force"], root, say, stop)
        graph = stage_graph(root)
        nodes = select(graph, list(targets or []))
        where = Where(executor, repository, remote, patience)
        made = [output for node in graph for output in node.outputs]
        with handing(where, root, nodes, stop, made) as hand:
            places = Places([Place(root, nodes)], said["revision"], stop, force, hand)
            places.check()
            with at_work():
                done, failed = places.run()
                if not failed:
                    # Before anything is shown: the server may be away.
                    message = f"Results of {said['revision']}"
                    if repository is not None:
                        commit_results(root, None, message)  # here at least, whatever comes
                    if push:
                        persist("dvc push", ["push"], root, say, stop)
                    if commit_to is not None:
                        commit = commit_results(root, commit_to, message)
                        line = f"{commit} on {commit_to}" if commit else "nothing new to commit"
                        say(f"results: {line}")
                publish_summary(done.values(), failed, said)
                if failed:
                    raise StageFailedError(reasons(failed))
                if any(node.name == "report" for node in nodes):
                    publish_results(root)
                return {name: one.outcome for name, one in done.items()}

    return carry_out(act, repository, branch, remote, commit_to)


def main() -> None:
    """Run the flow from the command line; exit with 2 for a mistake of the user's, 1 for a stage."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline", description="Run DVC's stages through Prefect."
    )
    parser.add_argument("targets", nargs="*", help="stages; all by default")
    parser.add_argument("--force", action="store_true", help="run them although nothing changed")
    parser.add_argument(
        "--executor", choices=("local", "workers"), default="local", help="where stages run"
    )
    parser.add_argument("--push", action="store_true", help="push to the DVC remote at the end")
    parser.add_argument(
        "--patience", type=float, default=600.0, help="seconds to wait for a worker"
    )
    given = parser.parse_args()
    finish(pipeline, vars(given))


if __name__ == "__main__":
    with as_command():
        main()
