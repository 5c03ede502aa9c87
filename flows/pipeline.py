"""The flow `pipeline`: DVC's stages as Prefect tasks, here or on the workers of their pools."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import publish_results, publish_summary
from flows.child import run_dvc
from flows.clones import commit_results, default_remote, head, require_unmodified, verify_remote
from flows.dispatch import Hand, hand_over, require_pools
from flows.graph import StageNode, changed, select, stage_graph
from flows.local import Done, Job, StageFailedError, cores, gpus, killed, run_stage
from flows.parameters import Branch, RemoteUrl, Repository, Target
from flows.run import at_work, carry_out, finish, pedigree, run_name
from flows.worker import fetch_sources
from flows.worker import push as push_stages
from tasks.check import check, put_away_leftovers

__all__ = ["main", "pipeline", "schedule"]


CHECK = "check"
"""The stage that says what all others depend on."""


class _Result(Protocol):
    """A stage on its way: Prefect's future, or in tests the standard library's."""

    def result(self) -> Done: ...


Future = TypeVar("Future", bound=_Result)


def schedule(
    nodes: list[StageNode],
    cores: int,
    submit: Callable[[StageNode], Future],
    first_done: Callable[[list[Future]], Future],
    gpus: int = 0,
    halt: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Done], dict[str, str]]:
    """Run the stages, each when all before it are done and what it claims is free.

    A stage that claims more than there is runs when all of it is free. After a failure the stages
    that depend on it are left out, the others still run.

    Args:
        nodes: the stages in topological order.
        cores: how many cores there are.
        submit: starts a stage.
        first_done: waits for one of the futures.
        gpus: how many GPUs there are.
        halt: ends what runs, if this is ended itself.

    Returns:
        What became of each stage that ended well, and the reason of each that failed.
    """
    waiting = {node.name: node for node in nodes}
    running: dict[Future, StageNode] = {}
    done: dict[str, Done] = {}
    failed: dict[str, str] = {}

    def free(total: int, claim: Callable[[StageNode], int], node: StageNode) -> bool:
        taken = sum(min(claim(other), total) for other in running.values())
        return min(claim(node), total) <= total - taken

    def step() -> None:
        for node in list(waiting.values()):
            if any(name in failed for name in node.upstream):
                failed[node.name] = "left out, a stage before it failed"
                del waiting[node.name]
            elif (
                all(name in done for name in node.upstream)
                and free(cores, lambda one: one.cores, node)
                and free(gpus, lambda one: one.gpus, node)
            ):
                running[submit(node)] = waiting.pop(node.name)
        if running:
            future = first_done(list(running))
            node = running.pop(future)
            try:
                done[node.name] = future.result()
            except Exception as error:  # whatever ended the task: the others go on
                failed[node.name] = str(error)

    try:
        while waiting or running:
            step()
    except BaseException:
        # Not before they are gone may another run have their workspace.
        halt()
        for future in running:
            with suppress(Exception):
                future.result()
        raise
    return done, failed


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
    patience: float = 600.0,
) -> State[Any]:
    """Bring the pipeline's stages up to date through DVC, and show the verdict and the samples.

    Args:
        targets: stages to run with all they depend on, such as "train" or "train@digits-ve-0"; all
            stages by default.
        force: whether to run stages although nothing changed.
        executor: "local": all stages in the flow's own workspace, side by side within its cores and
            GPUs; "workers": a stage with a `meta: pool` by a worker of that pool.
        push: whether to push everything to the DVC remote at the end.
        repository: work in a clone of it that is this deployment's own; by default in the folder in
            which the flow was started. Workers fetch the commit from here too.
        branch: whose newest commit is checked out in the clone.
        remote: address of the DVC remote of clones, the workers' too; by default the one that the
            commit names in .dvc/config.
        commit_to: branch to which dvc.lock and the results are committed at the end, only from a
            clone; nothing is committed by default.
        patience: seconds to wait for a worker before a stage is given up.

    Returns:
        A state: Completed, with for each stage "ran", "restored" or "up to date"; Failed, with the
        reasons, if a stage failed, and those that do not depend on it have run; Refused, if
        something that was asked for cannot be, and nothing has run.
    """

    def act(root: Path, stop: threading.Event) -> dict[str, str]:
        said = pedigree(root)
        if repository is not None and default_remote(root) is not None:
            fetch_sources(root, get_run_logger().info, stop)
        check()
        nodes = select(stage_graph(root), list(targets or []))
        if push and default_remote(root) is None:
            raise ValueError(
                "push: not allowed without a DVC remote (dvc remote add --default NAME ADDRESS, or "
                "the parameter remote), allowed: false"
            )
        if executor == "workers":
            hand = _hand(root, nodes, repository, remote, force, patience, stop)
        with at_work():
            if executor == "workers":
                done, failed = _by_workers(root, nodes, hand, said["revision"])
            else:
                pull = repository is not None and default_remote(root) is not None
                done, failed = _here(root, nodes, force, pull, said["revision"], stop)
            publish_summary(done.values(), failed, said)
            if failed:
                reasons = dict.fromkeys(_reason(name, why) for name, why in failed.items())
                raise StageFailedError("; ".join(reasons))
            if any(node.name == "report" for node in nodes):
                publish_results(root)
            _keep(root, push, commit_to, said["revision"], stop)
            return {name: one.outcome for name, one in done.items()}

    return carry_out(act, repository, branch, remote, commit_to, "pipeline")


def _keep(
    root: Path, push: bool, commit_to: str | None, revision: str, stop: threading.Event
) -> None:
    """Push to the DVC remote and commit the results, as far as that was asked for."""
    logger = get_run_logger()
    if push:
        push_stages(root, logger.info, stop, [])
    if commit_to is not None:
        made = commit_results(root, commit_to, f"Results of {revision}")
        logger.info("results: %s", f"{made} on {commit_to}" if made else "nothing new to commit")


def _reason(name: str, why: str) -> str:
    return why if name in why else f"{name}: {why}"


def _first_done(futures: list[PrefectFuture[Done]]) -> PrefectFuture[Done]:
    return next(iter(as_completed(futures)))


class _Known:
    """The future of a stage that needs nothing more."""

    def __init__(self, done: Done) -> None:
        self.done = done

    def result(self) -> Done:
        return self.done


def _first(futures: list[Any]) -> Any:
    known = next((future for future in futures if isinstance(future, _Known)), None)
    return known or _first_done(cast("list[PrefectFuture[Done]]", futures))


def _run(
    root: Path,
    node: StageNode,
    revision: str,
    stop: threading.Event,
    force: bool,
    pull: bool,
) -> PrefectFuture[Done]:
    prepared = run_stage.with_options(
        retries=node.retries, retry_delay_seconds=1, retry_condition_fn=killed
    )
    return prepared.submit(node.name, revision, Job(root, node, stop, force, pull))


def _stale(
    root: Path, nodes: list[StageNode], force: bool, stop: threading.Event
) -> tuple[set[str], dict[str, Done]]:
    """Return the stages to look at, and what has become of `check`, on which all others depend.

    What it makes says which of them have changed at all, so it goes first.
    """
    if force:
        return {node.name for node in nodes}, {}
    stale = changed(root)
    if CHECK not in stale:
        return stale, {}
    began = time.monotonic()
    run_dvc(["repro", "--single-item", CHECK], root, get_run_logger().info, stop=stop)
    done = Done(CHECK, "ran", time.monotonic() - began)
    return changed(root) - {CHECK}, {CHECK: done}


def _here(
    root: Path,
    nodes: list[StageNode],
    force: bool,
    pull: bool,
    revision: str,
    stop: threading.Event,
) -> tuple[dict[str, Done], dict[str, str]]:
    to_run, known = _stale(root, nodes, force, stop)

    def submit(node: StageNode) -> Any:
        if node.name not in to_run:
            return _Known(known.get(node.name, Done(node.name, "up to date")))
        return _run(root, node, revision, stop, force, pull)

    return schedule(nodes, cores(), submit, _first, len(gpus(root)), halt=stop.set)


def _hand(
    root: Path,
    nodes: list[StageNode],
    repository: str | None,
    remote: str | None,
    force: bool,
    patience: float,
    stop: threading.Event,
) -> Hand:
    """Return how stages are handed to workers, after checking that they can be."""
    require_unmodified(root, nodes)
    found = default_remote(root)
    if found is None:
        raise ValueError(
            "executor: 'workers' needs a DVC remote, through which the machines exchange results: "
            "dvc remote add --default storage s3://BUCKET/PATH (or a folder that all of them see)"
        )
    require_pools(nodes)
    own_pool = _own_pool()
    if own_pool is not None and own_pool in {node.pool for node in nodes}:
        raise ValueError(
            f"executor: 'workers' is not allowed for a flow that itself occupies a worker of "
            f"{own_pool!r}, which its stages need; deploy it to a pool of its own"
        )
    return Hand(
        root=root,
        repository=repository or str(root),
        revision=head(root),
        remote=remote or found.url,
        force=force,
        patience=patience,
        stop=stop,
    )


def _own_pool() -> str | None:
    run = flow_run.get_id()
    if run is None:
        return None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run).work_pool_name  # type: ignore[arg-type]


def _by_workers(
    root: Path, nodes: list[StageNode], hand: Hand, revision: str
) -> tuple[dict[str, Done], dict[str, str]]:
    logger = get_run_logger()
    if verify_remote(root):
        logger.info("what comes from the DVC remote is verified from now on (.dvc/config.local)")
    to_run, known = _stale(root, nodes, hand.force, hand.stop)
    if any(node.pool is not None and node.name in to_run for node in nodes):
        # What was made here before is what workers will ask the remote for.
        push_stages(root, logger.info, hand.stop, [])
    put_away_leftovers()

    def submit(node: StageNode) -> Any:
        if node.name not in to_run:
            return _Known(known.get(node.name, Done(node.name, "up to date")))
        if node.pool is None:
            return _run(root, node, revision, hand.stop, hand.force, pull=False)
        return hand_over.submit(node.name, revision, node, hand)

    # What workers run claims nothing here.
    claims = [node if node.pool is None else replace(node, cores=0, gpus=0) for node in nodes]
    return schedule(claims, cores(), submit, _first, halt=hand.stop.set)


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
    main()
