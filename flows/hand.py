"""Stages handed to work pools: submitted or found under way, watched all at once, and taken back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Crashed
from ruamel.yaml import YAML

from flows.progress import PULSE, meanwhile, patiently
from flows.stages import At, StageFailedError, failed_with
from tasks.files.addresses import require_remote
from tasks.files.dvc import DvcFailedError, StoppedError, persist
from tasks.files.git import head
from tasks.files.graph import StageNode, entries, try_restore
from tasks.files.hashes import content_hash
from tasks.files.made import take_back
from tasks.files.places import Work
from tasks.files.schedule import Done
from tasks.files.worktree import default_remote, require_unmodified, verify_remote

__all__ = ["Hand", "hand_over", "handing"]

_POLL = 1.0  # seconds between two looks at what is under way
_LEAVE = 30.0  # seconds for the last look
_LOOK = 10.0  # seconds between two looks at a pool's workers
_TAKEN = 20.0  # after as many seconds a stage that no worker has taken gets a line
# Seconds without a sign of life after which a stage's run is dead. Prefect's own heartbeats (30 s apart
# at least, and an automation on the server) count on while the server is away: a restart of more than a
# minute would end runs that live (test_only_silence_while_the_server_answers_counts), and one that dies
# before its first line is never missed (test_a_killed_worker_s_stage_goes_on_under_the_next_one).
_SILENT = 6 * PULSE + 15
# Seconds that a run may take from its worker's hands to its first sign of life: its process starts,
# or a container's image is fetched and a node is found.
_STARTING = {"process": 180.0}
_STARTING_ELSEWHERE = 1200.0
_GAP = 5.0  # a server that is down tells nothing of a run: so much at most counts between two looks
_DEATHS = 5
_GIVEN_UP = "given-up-by:"  # a tag of a run, with the flow run that did not wait for it any longer
_PAGE = 200  # what the server tells at a time
_TELL = 10  # runs whose lines are asked for at a time
_LAST_LINES = 2.5  # seconds that a worker's last lines take to reach the server
_ONLINE = 75.0  # a worker is heard of every 30 s
_UNLIMITED = 100  # stages at once in a pool whose infrastructure has a queue of its own
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


class _DiedError(RuntimeError):
    """A stage's run has vanished: it is handed over again."""


@contextmanager
def handing(
    at: At, nodes: list[StageNode], outputs: Collection[str] | None = None
) -> Iterator[Hand | None]:
    """Yield how stages are handed to workers, after checking that they can be.

    Args:
        at: where, and how.
        nodes: the stages.
        outputs: of the workspace's stages, if what is run is what is checked out there, so that workers
            have all but these only if it is committed.

    Yields:
        How; None if they are not.

    Raises:
        ValueError: one line that says why not, and what to do.
    """
    if at.asked.executor != "workers":
        yield None
        return
    if outputs is not None:
        require_unmodified(at.root, outputs)
    if at.asked.helpers:
        _require_shared_folder(at.root)
    there, address = default_remote(at.root)
    if not there:
        raise ValueError(
            "executor: 'workers' needs a DVC remote, through which the machines exchange results: "
            "dvc remote add --default storage s3://BUCKET/PATH (or a folder that all of them see)"
        )
    if (address := at.asked.remote or address) is not None:
        require_remote(address)  # it will stand in the server's database
    pools = {node.pool for node in nodes if node.pool is not None}
    with get_client(sync_client=True) as client:
        theirs = patiently(partial(_require_pools, pools, client), at.stop)
        if verify_remote(at.root):
            line = "what comes from the DVC remote is verified from now on (.dvc/config.local)"
            get_run_logger().info(line)
        hand = Hand(at.asked.repository or theirs or str(at.root), address, at, pools)
        patiently(partial(hand.see_pools, client), at.stop)
        with meanwhile(partial(hand.watch, client), _POLL, _LEAVE):
            yield hand


def _require_pools(pools: set[str], client: SyncPrefectClient) -> str | None:
    """Refuse pools that are not there, or that this run occupies; return the address that they are for.

    None if they are deployed for a folder of this machine.
    """
    address = None
    for pool in sorted(pools):
        try:
            client.read_work_pool(pool)
            deployed = client.read_deployment_by_name(f"stage/{pool}").parameters
        except ObjectNotFound:
            raise ValueError(
                f"executor: 'workers' needs the work pool {pool!r} and the deployment 'stage/{pool}', "
                f"which this server lacks: prefect work-pool create {pool} --type process; prefect "
                "--no-prompt deploy --all"
            ) from None
        given = str(deployed.get("repository") or "/")
        address = address if given.startswith("/") else given
    run = flow_run.get_id()
    own = client.read_flow_run(UUID(run)).work_pool_name if run is not None else None
    if own in pools:
        raise ValueError(
            f"executor: 'workers' is not allowed for a flow that itself occupies a worker of {own!r}, "
            "which its stages need; deploy it to a pool of its own"
        )
    return address


def _require_shared_folder(root: Path) -> None:
    """Refuse helpers of a stage whose unfinished work they do not see."""
    params = YAML(typ="safe", pure=True).load(root / "params.yaml")
    folder = str(params.get("checkpoints", {}).get("folder", ""))
    if not Path(folder).is_absolute():
        raise ValueError(
            f"helpers: not allowed with params.yaml: checkpoints.folder: {folder!r}, which is another "
            "folder on each machine, allowed with: the absolute path of one that all of them see"
        )


class _Followed:
    """A run that is watched: what was last heard of it, and for how long nothing was."""

    def __init__(self, run: FlowRun, node: StageNode, adopted: bool, logger: Any) -> None:
        self.run, self.stage, self.pool = run, node.name, str(node.pool)
        self.adopted, self.logger = adopted, logger
        self.over = threading.Event()
        self.why = ""  # it was given up
        self.shown, self.told = 0, 0.0  # lines, and when they were looked at
        self.sign: Any = None
        self.silent, self.looked = 0.0, time.monotonic()
        self.since = self.alone_since = time.monotonic()
        self.said: tuple[bool, float] = (False, 0.0)

    def silent_for(self, sign: Any) -> float:
        """Return for how long it gave no sign of life while the server answered, by this clock."""
        now = time.monotonic()
        self.silent += min(now - self.looked, _GAP)
        self.looked = now
        if sign != self.sign:
            self.sign, self.silent = sign, 0.0
        return self.silent


class _Pool:
    """A pool's workers, as last seen."""

    def __init__(self, pool: WorkPool, client: SyncPrefectClient) -> None:
        now = datetime.now(UTC)
        heard = {
            worker.name: (now - worker.last_heartbeat_time).total_seconds()
            for worker in client.read_workers_for_work_pool(pool.name)
            if worker.last_heartbeat_time is not None
        }
        self.listed = ", ".join(
            f"{name} (last heard of {seconds:.0f} s ago)" for name, seconds in sorted(heard.items())
        )
        online = sum(seconds < _ONLINE for seconds in heard.values())
        self.alone = online == 0
        variables = pool.base_job_template.get("variables", {}).get("properties", {})
        queue = variables.get("deadline", {}).get("default")  # Slurm's: flows/deploy/slurm.json
        self.starting = queue or _STARTING.get(pool.type, _STARTING_ELSEWHERE)
        # One more for each worker, so that it finds its next stage when it has ended one.
        own = 2 * max(online, 1) if queue is None and pool.type in _STARTING else _UNLIMITED
        self.room = own if pool.concurrency_limit is None else max(pool.concurrency_limit, 1)


class Hand:
    """How stages are handed to workers, and what the server knows of them, asked for all at once.

    Args:
        repository: where workers fetch commits.
        remote: address of the DVC remote; None for the one that the commit names.
        at: where the flow that hands them over works, and how.
        pools: names of the work pools.
    """

    def __init__(self, repository: str, remote: str | None, at: At, pools: Collection[str]) -> None:
        self.repository, self.remote = repository, remote
        self.patience, self.stop, self.helpers = at.asked.patience, at.stop, at.asked.helpers
        self.over = hand_over.with_options(
            retries=_DEATHS - 1, retry_condition_fn=failed_with(_DiedError)
        )
        self._followed: dict[UUID, _Followed] = {}
        self._pools: dict[str, _Pool] = {}
        self._names, self._looked, self._down = pools, 0.0, False
        self.own = flow_run.get_id()
        self._pushing, self.pushed = threading.Lock(), set[tuple[Path, str]]()

    def room(self) -> dict[str, int]:
        """Return how many stages each pool can take: no more are handed over."""
        return {f"pool {name}": pool.room for name, pool in self._pools.items()}

    def push(self, work: Work) -> None:
        """Push what a stage depends on, as far as this flow has not had it pushed."""
        with self._pushing:
            if work.stop.is_set():  # many may have waited for this lock
                raise StoppedError
            missing = [name for name in work.node.upstream if (work.root, name) not in self.pushed]
            if missing:
                say = get_run_logger().info
                persist("dvc push", ["push", *missing], work.root, say, work.stop)
                self.pushed |= {(work.root, name) for name in missing}

    def start(self, work: Work, commit: str, logger: Any) -> _Followed:
        """Return the run of a stage, which somebody else may have begun; it is watched from now on.

        Args:
            work: the stage.
            commit: what is checked out.
            logger: takes its lines.

        Returns:
            The run.
        """
        node = work.node
        parameters = self._parameters(work, commit) | {"force": work.force}
        tag = f"inputs:{content_hash(parameters)[:16]}"
        with get_client(sync_client=True) as client:
            before = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=10,
            )
        alive = [run for run in before if run.state is not None and not run.state.is_final()]
        newest = before[0].id if before else "first"
        # The server has one run of a key: two flows that come here at once get the same.
        run: FlowRun = alive[0] if alive else run_deployment(  # type: ignore[assignment]
            f"stage/{node.pool}",
            parameters=parameters,
            timeout=0,
            tags=[tag, f"revision:{commit}"],
            flow_run_name=f"{node.name} · {commit[:7]}",
            idempotency_key=f"{tag}-{newest}",
        )  # fmt: skip
        if alive:
            logger.info("%s: is under way as %s (%s), waits for it", node.name, run.name, run.id)
        self._followed[run.id] = _Followed(run, node, bool(alive), logger)
        return self._followed[run.id]

    def _parameters(self, work: Work, commit: str) -> dict[str, Any]:
        return {
            "stage": work.node.name,
            "revision": commit,
            "repository": self.repository,
            "remote": self.remote,
            "entries": entries(work.root, work.node.upstream),
        }

    @contextmanager
    def assisted(
        self, followed: _Followed, work: Work, commit: str
    ) -> Iterator[Callable[[], None]]:
        """Have other workers help a stage, if it can be helped, until the context ends.

        Args:
            followed: the stage's run.
            work: the stage.
            commit: what is checked out.

        Yields:
            What asks for them, if they are to be asked for now: when the stage's own run is at work.
        """
        left = list(range(1, self.helpers + 1)) if work.node.helped else []
        runs: list[UUID] = []

        def ask() -> None:
            state = followed.run.state
            if not left or state is None or not state.is_running():
                return
            parameters = self._parameters(work, commit) | {"helps": str(followed.run.id)}
            # The server may be restarting; the next time tries again.
            with suppress(httpx.HTTPError):
                while left:
                    run: FlowRun = run_deployment(  # type: ignore[assignment]
                        f"stage/{work.node.pool}",
                        parameters=parameters,
                        timeout=0,
                        tags=[f"helps:{followed.run.id}", f"revision:{commit}"],
                        flow_run_name=f"{work.node.name} · {commit[:7]} · helps",
                        idempotency_key=f"helps-{followed.run.id}-{left[0]}",
                    )
                    runs.append(run.id)
                    left.pop(0)

        try:
            yield ask
        finally:
            # Those that have no worker yet; the others see it, and stop by themselves.
            with suppress(httpx.HTTPError, ObjectNotFound), get_client(sync_client=True) as client:
                for one in runs:
                    state = client.read_flow_run(one).state
                    if state is not None and not state.is_final():
                        client.set_flow_run_state(
                            one, Cancelled(message=f"{work.node.name} is done")
                        )

    def watch(self, client: SyncPrefectClient) -> None:
        """Look once at all runs; where the server does not answer, say so, once."""
        try:
            self._see(client)
            self._down = False
        except Exception as error:  # of whatever kind: while nobody looks, everybody waits
            if not self._down:
                said = f"the Prefect server does not answer ({error!r}); waits for it"
                print(said, flush=True)
            self._down = True

    def see_pools(self, client: SyncPrefectClient) -> None:
        """Look at the pools' workers."""
        self._looked = time.monotonic()
        self._pools = {name: _Pool(client.read_work_pool(name), client) for name in self._names}

    def _see(self, client: SyncPrefectClient) -> None:
        """Look once at all runs, with one question of each kind."""
        if time.monotonic() - self._looked > _LOOK:
            self.see_pools(client)
        followed = list(self._followed.items())
        open_ = dict([(key, one) for key, one in followed if not one.over.is_set()][:_PAGE])
        if not open_:
            return
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(open_))), limit=_PAGE
        )
        for key in open_.keys() - {run.id for run in runs}:  # somebody has deleted it
            open_[key].run.state = None
            open_[key].over.set()
        ended = [run for run in runs if run.state is not None and run.state.is_final()]
        if any(run.state is not None and not run.state.is_completed() for run in ended):
            self.stop.wait(_LAST_LINES)  # they say why
        # So many lines at most between two looks, everybody in turn.
        longest = sorted(open_, key=lambda key: open_[key].told)
        for key in dict.fromkeys([*(run.id for run in ended), *longest[:_TELL]]):
            self._tell(key, client)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=list(open_)))
        )
        signs = {
            one.flow_run_id: one.updated
            for one in sorted(artifacts, key=lambda one: str(one.updated))
        }
        for run in runs:
            one = open_[run.id]
            one.run = run
            if run in ended:
                one.over.set()
            elif run.state is None or run.state.is_scheduled():
                self._wait(one, client)
            else:
                pool = self._pools[one.pool]
                sign = signs.get(run.id)
                silent = one.silent_for((run.state.type, sign or run.state.timestamp))
                if silent > (_SILENT if sign else pool.starting):
                    # If it lives all the same, it sees that and stops.
                    client.set_flow_run_state(
                        run.id, Crashed(message=f"no sign of life for {silent:.0f} s"), force=True
                    )
                    for artifact in artifacts:  # how far it was would hide what there is to see
                        if artifact.flow_run_id == run.id:
                            client.delete_artifact(artifact.id)

    def _wait(self, one: _Followed, client: SyncPrefectClient) -> None:
        """Say why no worker has taken a stage, when that changes and once a minute; or give it up."""
        now, pool = time.monotonic(), self._pools[one.pool]
        if not pool.alone:
            one.alone_since = now
        if (waited := now - one.since) < _TAKEN:
            return
        if pool.alone:
            heard = f" but {pool.listed}" if pool.listed else ""
            line = (
                f"{one.stage}: work pool {one.pool!r} has no worker{heard}; start one: "
                f"prefect worker start --pool {one.pool}"
            )
        else:
            line = (
                f"{one.stage}: waits for a worker of pool {one.pool!r} since {waited:.0f} s: "
                f"{pool.listed}"
            )
        alone, said = one.said
        if not said or alone is not pool.alone or now - said > 60:
            one.said = (pool.alone, now)
            one.logger.log(WARNING if pool.alone else INFO, "%s", line)
        if now - one.alone_since > self.patience:
            one.why = f"{line}; given up after {self.patience:g} s"
            self.cancel(one, client)
            one.over.set()

    def cancel(self, one: _Followed, client: SyncPrefectClient) -> None:
        """End a run; another flow that waits for it too sees by its tags that nobody meant the stage."""
        tags = {*one.run.tags, f"{_GIVEN_UP}{self.own}"}
        client.update_flow_run(one.run.id, tags=sorted(tags))
        client.set_flow_run_state(one.run.id, Cancelling())

    def _tell(self, run: UUID, client: SyncPrefectClient) -> None:
        """Print a run's lines that came since; they are its own for Prefect's page."""
        one, lines = self._followed[run], None
        one.told = time.monotonic()
        while lines is None or len(lines) == _PAGE:
            lines = client.read_logs(
                log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
                limit=_PAGE,
                offset=one.shown,
                sort=LogSort.TIMESTAMP_ASC,
            )
            one.shown += len(lines)
            for line in lines:
                if line.name in _LOGGERS and not line.message.startswith(_STEPS):
                    print(f"{one.stage} | {line.message}", flush=True)


@task(name="stage", task_run_name="{stage} · {revision}", cache_policy=NO_CACHE)
def hand_over(stage: str, revision: str, work: Work, hand: Hand) -> Done:  # noqa: ARG001
    """Have one stage run by a worker of its pool, and take back what it made.

    Args:
        stage: what it is called.
        revision: the short commit, for people.
        work: the stage, and the workspace that it is for.
        hand: how.

    Returns:
        What became of it.

    Raises:
        StageFailedError: with the stage's own line, or if no worker takes it.
        StoppedError: if the flow was asked to end.
    """
    logger, node, began = get_run_logger(), work.node, time.monotonic()
    if work.stop.is_set():
        raise StoppedError
    if not work.force and try_restore(work.root, node.name):
        logger.info("%s: restored", stage)
        return Done(stage, "restored", time.monotonic() - began)
    hand.push(work)
    commit = head(work.root)
    followed = patiently(partial(hand.start, work, commit, logger), work.stop)
    with hand.assisted(followed, work, commit) as ask_helpers:
        while not followed.over.wait(0.5):
            if work.stop.is_set():
                with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
                    # Where that fails it looks at the run that asked for it, and ends by itself.
                    hand.cancel(followed, client)
                raise StoppedError(f"{stage}: cancelled with the run that asked for it")
            ask_helpers()
    run, state = followed.run, followed.run.state
    message = str(state.message or "") if state is not None else ""
    if followed.why:
        raise StageFailedError(followed.why)
    others = any(tag.startswith(_GIVEN_UP) and not tag.endswith(f"{hand.own}") for tag in run.tags)
    ended = state is not None and state.is_cancelled() and (followed.adopted or others)
    if state is None or state.is_crashed() or ended:
        logger.warning(
            "%s: its run %s died; it is handed over again (%s)", stage, run.name, message
        )
        raise _DiedError(f"{stage}: given up after {_DEATHS} runs that died, the last: {message}")
    if state.is_cancelled():
        raise StageFailedError(f"{stage}: its run {run.name} was cancelled {message}".strip())
    if not state.is_completed():
        raise StageFailedError(message if stage in message else f"{stage}: {message}")
    said = json.loads(message)
    try:
        take_back(work.root, node.name, said, logger.info, work.stop)
    except DvcFailedError as error:
        raise StageFailedError(
            f"{stage}: a worker has finished it, but what it made cannot be restored here ({error}); "
            "is the DVC remote of the workers this workspace's?"
        ) from None
    hand.pushed.add((work.root, node.name))
    waited = time.monotonic() - began - said["seconds"]
    where = f"{node.pool}: {said['host']}"
    return Done(stage, said["outcome"], said["seconds"], where, waited, said["gpus"])
