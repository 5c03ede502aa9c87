"""The flow that a worker runs: one stage, in a clone of its own at the exact commit."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from ruamel.yaml import YAML

from flows.child import DvcFailedError, Say, StageKilledError, StoppedError, run_dvc
from flows.clones import clone
from flows.deployments import require_allowed
from flows.graph import StageNode, ancestors, changed, stage_graph
from flows.local import Job, StageFailedError, killed, run_stage
from flows.parameters import Commit, RemoteUrl, Repository, Target
from flows.progress import Lookout, Progress
from tasks.files.layout import TIMINGS, Configuration

__all__ = ["fetch_sources", "push", "restore", "stage"]

_REFUSE = shutil.which("false") or "/bin/false"
_TRIES = 4
_SECONDS = 2.0  # before the second try; doubled before each further one


def _persist(what: str, arguments: list[str], root: Path, say: Say, stop: threading.Event) -> None:
    """Run a command that talks to the DVC remote; try again if that fails.

    Args:
        what: what it does, for people.
        arguments: the command.
        root: the workspace.
        say: takes the lines for people.
        stop: ends it when it is set.

    Raises:
        DvcFailedError: after the last try, with what DVC said.
    """
    for attempt in range(_TRIES):
        try:
            run_dvc(arguments, root, say, stop=stop)
        except DvcFailedError as error:
            if attempt + 1 == _TRIES:
                raise DvcFailedError(
                    f"{what} failed {_TRIES} times, the last one with: {error}; what is finished is "
                    f"in the cache of {root}, and the next run goes on from there"
                ) from None
            say(f"{what} failed ({error}), tries again")
            if stop.wait(_SECONDS * 2**attempt):
                raise StoppedError("stopped, as the run that asked for it has ended") from None
        else:
            return


def push(root: Path, say: Say, stop: threading.Event, stages: list[str]) -> None:
    """Push what stages made, and how they were made, to the DVC remote.

    Args:
        root: the workspace.
        say: takes the lines for people.
        stop: ends it when it is set.
        stages: their names; all that the workspace has, if empty.

    Raises:
        DvcFailedError: if the remote cannot be reached, after several tries.
    """
    _persist("dvc push", ["push", "--run-cache", *stages], root, say, stop)


def restore(root: Path, nodes: list[StageNode], say: Say, stop: threading.Event) -> None:
    """Bring the outputs of stages from a cache or the DVC remote; run nothing that has a pool.

    Args:
        root: the workspace.
        nodes: the stages, each after all that it depends on; the last stage's ancestors are there
            or among them.
        say: takes the lines for people.
        stop: ends it when it is set.

    Raises:
        DvcFailedError: if something cannot be restored; the stage's own command is not run.
    """
    group: list[StageNode] = []
    for node in [*nodes, None]:
        if group and (node is None or (node.pool is None) != (group[0].pool is None)):
            names = [one.name for one in group]
            # DVC runs commands in the user's shell: with one that only fails, it can restore but not
            # run. Stages without a pool are cheap, and may have outputs that no cache holds.
            shell = {} if group[0].pool is None else {"SHELL": _REFUSE}
            command = ["repro", "--pull", "--single-item", *names]
            run_dvc(command, root, say, stop=stop, environment=shell)
            group = []
        if node is not None:
            group.append(node)


def _restore_patiently(
    stage: str, root: Path, nodes: list[StageNode], say: Say, stop: threading.Event
) -> None:
    """Restore what a stage depends on; DVC does not say whether it is missing or out of reach."""
    for attempt in range(_TRIES):
        try:
            restore(root, nodes, say, stop)
        except DvcFailedError as error:
            if attempt + 1 == _TRIES:
                raise StageFailedError(
                    f"{stage}: what it depends on cannot be restored from the DVC remote, tried "
                    f"{_TRIES} times: {error}"
                ) from None
            say(f"{stage}: what it depends on cannot be restored ({error}), tries again")
            if stop.wait(_SECONDS * 2**attempt):
                raise StoppedError("stopped, as the run that asked for it has ended") from None
        else:
            return


def fetch_sources(root: Path, say: Say, stop: threading.Event) -> None:
    """Fetch the active data sets that `dvc add` has put under DVC's care, which a clone lacks.

    Args:
        root: the clone.
        say: takes the lines for people.
        stop: ends it when it is set.

    Raises:
        DvcFailedError: if the remote lacks them or cannot be reached, after several tries.
    """
    params = YAML(typ="safe", pure=True).load(root / "params.yaml")
    tracked = [f"{Configuration(name).raw}.dvc" for name in params["active"]["datasets"]]
    there = [path for path in tracked if (root / path).exists()]
    if there:
        _persist("dvc pull", ["pull", *there], root, say, stop)


@flow(name="stage", flow_run_name="{stage} · {revision:.7}", persist_result=False)
def stage(
    stage: Target,
    revision: Commit,
    repository: Repository,
    remote: RemoteUrl | None = None,
    force: bool = False,
) -> State[Any]:
    """Run one stage at an exact commit, and push what it made; `pipeline` asks for it.

    Args:
        stage: the stage's name in DVC, such as train@digits-ve-0.
        revision: the commit.
        repository: where the commit is fetched from, as this machine reaches it.
        remote: address of the DVC remote; the one that the commit names by default.
        force: whether to run it although nothing changed.

    Returns:
        A state whose message is JSON: outcome, seconds, host, and the seconds by output's hash.
    """
    logger, stop = get_run_logger(), threading.Event()
    began = time.monotonic()
    own, parent = flow_run.get_id(), flow_run.get_parent_flow_run_id()
    try:
        require_allowed(repository)
        with (
            Lookout(stop, own, parent),
            Progress(stage, revision[:7]) as progress,
            clone(repository, commit=revision, remote=remote) as root,
        ):
            nodes = stage_graph(root)
            node = {one.name: one for one in nodes}.get(stage)
            if node is None:
                raise StageFailedError(f"{stage}: no stage of dvc.yaml at {revision[:7]}")
            logger.info("%s at %s in %s", stage, revision[:7], root)
            fetch_sources(root, logger.info, stop)
            stale = changed(root)
            before = [one for one in ancestors(nodes, stage) if one.name in stale]
            _restore_patiently(stage, root, before, logger.info, stop)
            run = run_stage.with_options(
                retries=node.retries, retry_delay_seconds=1, retry_condition_fn=killed
            )
            done = run(stage, revision[:7], Job(root, node, stop, force, True, progress))
            # Also what was restored: it may be from this machine's cache, after a push that failed.
            push(root, logger.info, stop, [stage])
            message = {
                "outcome": done.outcome,
                "seconds": round(time.monotonic() - began, 3),
                "host": socket.gethostname(),
                "timings": _timings(root, stage),
            }
    except StoppedError as error:
        return Cancelled(message=f"{stage}: {error}")
    except (StageKilledError, StageFailedError) as error:
        return Failed(message=str(error))
    except (DvcFailedError, ValueError, OSError) as error:
        return Failed(message=f"{stage}: {error}")
    return Completed(message=json.dumps(message))


def _timings(root: Path, name: str) -> dict[str, Any]:
    """Return what is known of how long a stage's outputs took to make, by their hashes."""
    lock = YAML(typ="safe", pure=True).load(root / "dvc.lock")
    found = {}
    for out in lock["stages"].get(name, {}).get("outs", []):
        path = root / TIMINGS / f"{out['md5']}.json"
        if path.exists():
            found[out["md5"]] = json.loads(path.read_text(encoding="utf-8"))
    return found
