"""Stages handed to work pools: submitted or found running, watched, and taken back through DVC."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from flows.child import DvcFailedError, StoppedError
from flows.graph import StageNode
from flows.local import Done, StageFailedError
from flows.progress import PULSE
from flows.worker import restore
from scoremodel.io.files import write_text
from tasks.files.addresses import require_remote
from tasks.files.layout import TIMINGS

__all__ = ["Hand", "hand_over", "require_pools"]

Result = TypeVar("Result")

_POLL = 1.0  # seconds between two looks
_TAKEN = 20.0  # after as many seconds a stage that no worker has taken gets a line
_SILENT = 6 * PULSE + 15  # seconds without a sign of life after which a stage's run is dead
# Seconds that a run may take from its worker's hands to its first sign of life: its process starts,
# or a container's image is fetched and a node is found.
_STARTING = {"process": 180.0}
_STARTING_ELSEWHERE = 1200.0
_LOOK = 10.0  # seconds between two looks at a pool's workers
_GAP = 5.0  # a server that is down tells nothing of a run: so much at most counts between two looks
_CRASHES = 5
_PAGE = 200  # lines of a log at a time
_LAST_LINES = 2.5  # seconds that a worker's last lines take to reach the server
_ONLINE = 75.0  # a worker is heard of every 30 s
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_STEPS = (  # Prefect's own, which its page shows
    "Beginning",
    "Finished in",
    "Running 1 deployment pull step",
    "Executing deployment step",
    "Deployment step",
    "All deployment steps",
    "Engine execution exited",
)


class Hand:
    """How stages are handed to workers.

    Args:
        root: the flow's own workspace.
        repository: where workers fetch the commit.
        revision: the commit.
        remote: address of the DVC remote; None for the one that the commit names.
        force: whether to run stages although nothing changed.
        patience: seconds to wait for a worker before a stage is given up.
        stop: ends the waiting, and what is waited for, when it is set.
    """

    def __init__(
        self,
        root: Path,
        repository: str,
        revision: str,
        remote: str | None,
        force: bool,
        patience: float,
        stop: threading.Event,
    ) -> None:
        if remote is not None:
            require_remote(remote)  # it will stand in the server's database
        self.root, self.repository, self.revision = root, repository, revision
        self.remote, self.force, self.patience, self.stop = remote, force, patience, stop

    def tags(self, stage: str) -> list[str]:
        """Return the tags by which another flow finds a stage that is under way."""
        place = hashlib.sha256(self.repository.encode()).hexdigest()[:12]
        return [f"stage:{stage}", f"revision:{self.revision}", f"repository:{place}"]


def require_pools(nodes: list[StageNode]) -> None:
    """Refuse to hand stages to pools that are not there.

    Args:
        nodes: the stages.

    Raises:
        ValueError: one line with the commands that make them.
    """
    for pool in sorted({node.pool for node in nodes if node.pool is not None}):
        with get_client(sync_client=True) as client:
            try:
                client.read_work_pool(pool)
                client.read_deployment_by_name(f"stage/{pool}")
            except ObjectNotFound:
                raise ValueError(
                    f"executor: 'workers' needs the work pool {pool!r} and the deployment "
                    f"'stage/{pool}', which this server lacks: prefect work-pool create {pool} "
                    "--type process; prefect --no-prompt deploy --all"
                ) from None


@task(name="stage", task_run_name="{stage} · {revision}", cache_policy=NO_CACHE)
def hand_over(stage: str, revision: str, node: StageNode, hand: Hand) -> Done:  # noqa: ARG001
    """Have one stage run by a worker of its pool, and take back what it made.

    Args:
        stage: the stage's name in DVC.
        revision: the short commit, for people.
        node: the stage.
        hand: how.

    Returns:
        What became of it.

    Raises:
        StageFailedError: with the stage's own line, or if no worker takes it.
        StoppedError: if the flow was asked to end.
    """
    logger = get_run_logger()
    began = time.monotonic()

    if not hand.force and _take_back(node, hand) is None:
        logger.info("%s: restored", stage)
        return Done(stage, "restored", time.monotonic() - began)
    for _ in range(_CRASHES):
        adopted = _adopt(stage, hand, logger.info)
        run = adopted or _submit(stage, node, hand)
        final = _watch(run, node, hand, logger)
        if final is None or final.state is None:
            logger.warning("%s: its run %s died; it is handed over again", stage, run.name)
            continue
        if final.state.is_completed():
            said = json.loads(final.state.message or "{}")
            for digest, timing in said.get("timings", {}).items():
                write_text(
                    hand.root / TIMINGS / f"{digest}.json",
                    json.dumps(timing, sort_keys=True) + "\n",
                )
            for pause in (2.0, 4.0, None):
                reason = _take_back(node, hand)
                if reason is None:
                    break
                if pause is None:
                    raise StageFailedError(
                        f"{stage}: a worker has finished it, but what it made cannot be restored "
                        f"here ({reason}); is the DVC remote of the workers this workspace's?"
                    )
                hand.stop.wait(pause)
            seconds = float(said.get("seconds", 0.0))
            waited = time.monotonic() - began - seconds
            where = f"{node.pool}: {said.get('host')}"
            return Done(stage, said.get("outcome", "ran"), seconds, where, waited)
        if final.state.is_crashed():
            logger.warning("%s: its run crashed (%s); again", stage, final.state.message)
            continue
        message = final.state.message or ""
        if final.state.is_cancelled() and adopted is not None:
            logger.warning("%s: its run was cancelled with the flow that began it; again", stage)
            continue
        if final.state.is_cancelled():
            raise StageFailedError(f"{stage}: its run {run.name} was cancelled {message}".strip())
        raise StageFailedError(message if stage in message else f"{stage}: {message}")
    raise StageFailedError(f"{stage}: given up after {_CRASHES} runs that died")


def _take_back(node: StageNode, hand: Hand) -> str | None:
    """Restore what a stage has made; return why that cannot be, None if it is done."""
    quiet: list[str] = []
    try:
        restore(hand.root, [node], quiet.append, hand.stop)
    except DvcFailedError as error:
        return str(error)
    return None


def _adopt(stage: str, hand: Hand, say: Callable[[str], None]) -> FlowRun | None:
    """Return a run of the same stage at the same commit that is under way, if there is one."""
    alive = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
    found = _patiently(
        lambda client: client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=hand.tags(stage)),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive)),
            )
        ),
        hand.stop,
    )
    if not found:
        return None
    say(f"{stage}: is under way as {found[0].name} ({found[0].id}), waits for it")
    return found[0]


def _submit(stage: str, node: StageNode, hand: Hand) -> FlowRun:
    made: FlowRun = run_deployment(  # type: ignore[assignment]
        f"stage/{node.pool}",
        parameters={
            "stage": stage,
            "revision": hand.revision,
            "repository": hand.repository,
            "remote": hand.remote,
            "force": hand.force,
        },
        timeout=0,
        tags=hand.tags(stage),
        flow_run_name=f"{stage} · {hand.revision[:7]}",
    )
    return made


def _patiently(ask: Callable[[SyncPrefectClient], Result], stop: threading.Event) -> Result:
    """Return the server's answer, however long a restart of it takes."""
    said = False
    while not stop.is_set():
        try:
            with get_client(sync_client=True) as client:
                return ask(client)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            if not said:
                print(f"the Prefect server does not answer ({error!r}); waits for it", flush=True)
                said = True
            stop.wait(2.0)
    raise StoppedError("stopped while the server did not answer")


class _Signs:
    """How long a run gave no sign of life while the server answered, by this machine's clock."""

    def __init__(self) -> None:
        self.seen: Any = None
        self.silent, self.looked = 0.0, time.monotonic()

    def silent_for(self, sign: Any) -> float:
        now = time.monotonic()
        self.silent += min(now - self.looked, _GAP)
        self.looked = now
        if sign != self.seen:
            self.seen, self.silent = sign, 0.0
        return self.silent


class _Waiting:
    """A stage that no worker has taken: why, said when it changes and once a minute."""

    def __init__(self, node: StageNode, hand: Hand, logger: Any) -> None:
        self.node, self.hand, self.logger = node, hand, logger
        self.since = time.monotonic()
        self.alone_since: float | None = self.since
        self.looked = self.said_at = -math.inf
        self.alone: bool | None = None

    def look(self) -> str | None:
        """Return a line if the pool has had no worker for longer than the flow's patience."""
        now = time.monotonic()
        waited = now - self.since
        if waited < _TAKEN or now - self.looked < _LOOK:
            return None
        self.looked = now
        alone, line = _who(self.node, waited, self.hand.stop)
        if alone is not self.alone or now - self.said_at > 60:
            self.alone, self.said_at = alone, now
            self.logger.log(WARNING if alone else INFO, "%s", line)
        if not alone:
            self.alone_since = None
            return None
        self.alone_since = now if self.alone_since is None else self.alone_since
        return line if now - self.alone_since > self.hand.patience else None


def _watch(run: FlowRun, node: StageNode, hand: Hand, logger: Any) -> FlowRun | None:
    """Wait for a stage's run and show its lines; return it in its final state, None if it died."""
    signs, shown, waiting = _Signs(), 0, _Waiting(node, hand, logger)
    starting = _starting(node, hand.stop)
    while True:
        if hand.stop.is_set():
            _cancel(run.id)
            raise StoppedError(f"{node.name}: cancelled with the run that asked for it")
        now = _patiently(lambda client: client.read_flow_run(run.id), hand.stop)
        shown = _show(run.id, node.name, shown, hand.stop)
        state = now.state
        if state is not None and state.is_final():
            if not state.is_completed():  # they say why
                hand.stop.wait(_LAST_LINES)
            _show(run.id, node.name, shown, hand.stop)
            return now
        if state is None or state.is_scheduled():
            alone = waiting.look()
            if alone is not None:
                _cancel(run.id)
                raise StageFailedError(f"{alone}; given up after {hand.patience:g} s")
        else:
            sign, patience = _sign(run.id, hand.stop), _SILENT
            if sign is None:  # its process is starting
                sign, patience = state.timestamp, starting
            silent = signs.silent_for((state.type, sign))
            if silent > patience:
                _bury(run.id, silent)
                return None
        hand.stop.wait(_POLL)


def _starting(node: StageNode, stop: threading.Event) -> float:
    """Return how long the pool's runs may take to start."""
    pool = _patiently(lambda client: client.read_work_pool(str(node.pool)), stop)
    return _STARTING.get(pool.type, _STARTING_ELSEWHERE)


def _sign(run: UUID, stop: threading.Event) -> datetime | None:
    """Return when a run's progress was last written, by the server's clock."""
    found = _patiently(
        lambda client: client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        ),
        stop,
    )
    return max((one.updated for one in found if one.updated is not None), default=None)


def _show(run: UUID, stage: str, shown: int, stop: threading.Event) -> int:
    """Print the lines that came since; they are in the stage's own run for Prefect's page."""
    while True:
        first = shown
        lines = _patiently(
            lambda client, first=first: client.read_logs(  # type: ignore[misc]
                log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
                limit=_PAGE,
                offset=first,
                sort=LogSort.TIMESTAMP_ASC,
            ),
            stop,
        )
        for line in lines:
            if line.name in _LOGGERS and not line.message.startswith(_STEPS):
                print(f"{stage} | {line.message}", flush=True)
        shown += len(lines)
        if len(lines) < _PAGE:
            return shown


def _who(node: StageNode, waited: float, stop: threading.Event) -> tuple[bool, str]:
    """Return whether a stage waits for want of a worker, and a line that says why it waits."""
    workers = _patiently(lambda client: client.read_workers_for_work_pool(str(node.pool)), stop)
    now = datetime.now(UTC)
    heard = {
        worker.name: (now - worker.last_heartbeat_time).total_seconds()
        for worker in workers
        if worker.last_heartbeat_time is not None
    }
    listed = ", ".join(
        f"{name} (last heard of {seconds:.0f} s ago)" for name, seconds in sorted(heard.items())
    )
    if not any(seconds < _ONLINE for seconds in heard.values()):
        return True, (
            f"{node.name}: work pool {node.pool!r} has no worker{f' but {listed}' if heard else ''}; "
            f"start one: prefect worker start --pool {node.pool}"
        )
    return (
        False,
        f"{node.name}: waits for a worker of pool {node.pool!r} since {waited:.0f} s: {listed}",
    )


def _cancel(run: UUID) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling())
    except httpx.HTTPError:
        pass  # the stage looks at the run that asked for it, and ends by itself


def _bury(run: UUID, silent: float) -> None:
    """Tell the server that a run is dead; if it lives all the same, it sees that and stops."""
    message = f"no sign of life for {silent:.0f} s"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Crashed(message=message), force=True)
