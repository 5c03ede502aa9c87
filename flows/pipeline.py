"""The flow `pipeline`: DVC's stages as Prefect tasks, here or on the workers of their pools."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from prefect import get_run_logger

from flows.artifacts import publish_results, publish_summary
from flows.form import asked, command
from flows.hand import handing
from flows.run import at_work, keep, pedigree
from flows.stages import At, StageFailedError, together
from tasks.files.dvc import DvcFailedError, persist
from tasks.files.graph import select, stage_graph
from tasks.files.places import Place
from tasks.files.schedule import reasons
from tasks.files.worktree import default_remote
from tasks.params.asked import Target

__all__ = ["pipeline"]


@asked
def pipeline(at: At, targets: list[Target] | None = None, force: bool = False) -> dict[str, str]:
    """Bring the pipeline's stages up to date through DVC, and show the verdict and the samples.

    Args:
        at: where, and how.
        targets: stages to run with all they depend on, such as "train" or "train@digits-ve-0"; all
            stages by default.
        force: whether to run stages although nothing changed.

    Returns:
        For each stage "ran", "restored" or "up to date". If one failed, those that do not depend on it
        have run.
    """
    root, stop, ask = at
    said, say = pedigree(root), get_run_logger().info
    if ask.push and not default_remote(root)[0]:
        raise ValueError(
            "push: not allowed without a DVC remote (dvc remote add --default NAME ADDRESS, or "
            "the parameter remote), allowed: false"
        )
    if ask.repository is not None and default_remote(root)[0]:
        # Data as well, which no stage makes. What the remote lacks is made.
        with suppress(DvcFailedError):
            persist("dvc pull", ["pull", "--allow-missing", "--force"], root, say, stop)
    graph = stage_graph(root)
    nodes = select(graph, list(targets or []))
    made = [output for node in graph for output in node.outputs]
    with handing(at, nodes, made) as hand:
        places = together(at, [Place(root, nodes)], said["revision"], hand, force)
        places.check()
        with at_work():
            done, failed = places.run()
            if not failed:
                # Before anything is shown: the server may be away.
                push = partial(persist, "dvc push", ["push"], root, say, stop)
                keep(at, f"Results of {said['revision']}", push)
            publish_summary(done.values(), failed, said)
            if failed:
                raise StageFailedError(reasons(failed))
            if any(node.name == "report" for node in nodes):
                publish_results(root)
            return {name: one.outcome for name, one in done.items()}


if __name__ == "__main__":
    command(pipeline)
