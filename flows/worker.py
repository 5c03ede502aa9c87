"""The flow that a worker runs: one stage, in a worktree of its own at the exact commit."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.deployments import require_allowed
from flows.progress import lookout, progress
from flows.stages import StageFailedError, run_stage
from tasks.files.dvc import DvcFailedError, StageKilledError, StoppedError, persist, run_helper
from tasks.files.gpus import some_gpus
from tasks.files.graph import stage_graph, write_entries
from tasks.files.made import made
from tasks.files.places import Work
from tasks.files.worktree import of_repository
from tasks.params.asked import Commit, RemoteUrl, Repository, Target

__all__ = ["stage"]


def _run_name() -> str:
    given = flow_run.get_parameters()
    return f"{given['stage']} · {given['revision'][:7]}" + " · helps" * bool(given.get("helps"))


@flow(name="stage", flow_run_name=_run_name, persist_result=False)
def stage(
    stage: Target,
    revision: Commit,
    repository: Repository,
    remote: RemoteUrl | None = None,
    force: bool = False,
    helps: UUID | None = None,
    entries: dict[str, Any] = {},  # noqa: B006
) -> State[Any]:
    """Run one stage at an exact commit, and push what it made; other flows ask for it.

    Args:
        stage: the stage's name in DVC, such as train@digits-ve-0.
        revision: the commit.
        repository: where the commit is fetched from, as this machine reaches it.
        remote: address of the DVC remote; the one that the commit names by default.
        force: whether to run it although nothing changed.
        helps: a run of it by another worker, whose work to do parts of, for as long as it runs.
        entries: what dvc.lock says of the stages that it depends on.

    Returns:
        A state whose message is JSON: the stage's entry of dvc.lock, outcome, seconds, host, GPUs, and
        the seconds by output's hash.
    """
    stop, say = threading.Event(), get_run_logger().info
    began = time.monotonic()
    try:
        require_allowed(repository)
        with (
            lookout(stop, flow_run.get_id(), flow_run.get_parent_flow_run_id(), helps),
            progress(stage, revision[:7]) as follow,
            of_repository(repository, commit=revision, remote=remote) as root,
        ):
            node = {one.name: one for one in stage_graph(root)}.get(stage)
            if node is None:
                raise StageFailedError(f"{stage}: no stage of dvc.yaml at {revision[:7]}")
            say(f"{stage} at {revision[:7]} in {root}")
            write_entries(root, entries)
            if node.needs:
                persist("fetching what it depends on", ["pull", *node.needs], root, say, stop)
            if helps is not None:
                with some_gpus(root, node.gpus, say, stop) as environment:
                    run_helper(node.cmd, root, say, stop, environment)
                return Completed(message=f"{stage}: helped on {socket.gethostname()}")
            run = run_stage.with_options(retries=node.retries)
            done = run(stage, revision[:7], Work(root, node, stop, force, follow))
            # Also what was restored: it may be from this machine's cache, after a push that failed.
            persist("dvc push", ["push", stage], root, say, stop)
            message = {
                **made(root, stage),
                "outcome": done.outcome,
                "seconds": round(time.monotonic() - began, 3),
                "gpus": done.gpus,
                "host": socket.gethostname(),
            }
    except StoppedError as error:
        return Cancelled(message=f"{stage}: {error}")
    except (StageKilledError, StageFailedError) as error:
        return Failed(message=str(error))
    except (DvcFailedError, ValueError, OSError, httpx.HTTPError) as error:
        return Failed(message=f"{stage}: {error}")
    return Completed(message=json.dumps(message))
