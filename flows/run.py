"""What every flow does around its work: where it works, what it says of itself, and how it ends."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError, TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE
from prefect.states import Cancelled, Completed, Failed
from pydantic import ValidationError

from flows.deployments import require_allowed
from flows.progress import lookout, state_of
from flows.stages import At, StageFailedError
from tasks.files.dvc import DvcFailedError, StoppedError, mend_claims
from tasks.files.git import short
from tasks.files.worktree import of_repository
from tasks.params.asked import Asked
from tasks.params.errors import ParamsError, cut, dotted, refusal, shown
from tasks.results.branch import commit_results, require_results_branch

__all__ = ["REFUSED", "at_work", "carry_out", "finish", "keep", "pedigree", "run_name"]

# Prefect's line about a refused parameter repeats all values; the one that follows it does not.
logging.getLogger("prefect.flows").addFilter(
    lambda record: not record.getMessage().startswith("Parameter validation failed")
)

REFUSED = "Refused"
"""Name of the state of a flow that was asked for what cannot be: nothing has run."""


def run_name() -> str:
    """Return the flow run's name; one that works elsewhere has its commit in its tags."""
    given = flow_run.get_parameters()
    place = given.get("branch") if given.get("repository") else short(Path.cwd())
    return f"{flow_run.get_flow_name()} · {place}"


def pedigree(root: Path) -> dict[str, str]:
    """Say which commit and which parameters are at work, on the flow run and to the caller.

    Args:
        root: the workspace.

    Returns:
        "revision" and "params", a hash of `params.yaml`.
    """
    digest = hashlib.sha256((root / "params.yaml").read_bytes()).hexdigest()[:8]
    said = {"revision": short(root), "params": digest}
    run = flow_run.get_id()
    if run is not None:
        tags = {f"{key}:{value}" for key, value in said.items()} | set(flow_run.get_tags())
        try:
            with get_client(sync_client=True) as client:
                client.update_flow_run(UUID(run), tags=sorted(tags))
        except httpx.HTTPError:
            get_run_logger().warning("the server did not take the run's tags")
    get_run_logger().info("revision %s, params.yaml %s, in %s", *said.values(), root)
    return said


@contextmanager
def _workspace(asked: Asked) -> Iterator[Path]:
    """Yield the folder to work in, which is the current one meanwhile."""
    if asked.repository is None:
        yield Path.cwd()
        return
    require_allowed(asked.repository)
    with (
        of_repository(asked.repository, branch=asked.branch, remote=asked.remote) as root,
        chdir(root),
    ):
        yield root


def carry_out(act: Callable[[At], Any], asked: Asked) -> State[Any]:
    """Do what a flow is for in its workspace, and return the state in which it ends.

    Args:
        act: does it.
        asked: where, and how.

    Returns:
        Completed, with what `act` returned; Refused, a failure before anything has run; Failed with
        the reason; or Cancelled.
    """
    stop = threading.Event()
    ended = False  # by somebody
    try:
        if asked.commit_to is not None and asked.repository is None:
            raise ValueError(
                "commit_to: not allowed without a repository, only from a worktree of its own"
            )
        if asked.commit_to == asked.branch:
            raise ValueError(
                f"commit_to: {asked.commit_to!r} is not allowed, it is the branch that is run"
            )
        with _one_signal(), _workspace(asked) as root, lookout(stop, flow_run.get_id()):
            try:
                mend_claims(root, lambda line: get_run_logger().info(line))
                if asked.commit_to is not None:
                    require_results_branch(root, asked.commit_to)
                return Completed(data=act(At(root, stop, asked)))
            except BaseException:
                ended = stop.is_set()
                stop.set()  # before the workspace is another run's
                raise
    except (ParamsError, ValueError) as error:
        return Failed(name=REFUSED, message=str(error))
    except (StageFailedError, DvcFailedError, StoppedError, OSError, httpx.HTTPError) as error:
        if ended or _cancelling():
            return Cancelled(message=str(error))
        return Failed(message=str(error))


def _cancelling() -> bool:
    """Return whether this run is being cancelled: its stages may see that before it does."""
    try:
        state = state_of(flow_run.get_id())
    except httpx.HTTPError:
        return False
    return state is not None and state.is_cancelling()


def keep(at: At, message: str, push: Callable[[], None]) -> None:
    """Commit what a run has made, and push it, as far as that is asked for.

    Args:
        at: where, and how.
        message: of the commit.
        push: pushes it.
    """
    if at.asked.repository is not None:
        commit_results(at.root, None, message)  # here at least, whatever comes
    if at.asked.push:
        push()
    if at.asked.commit_to is not None:
        made = commit_results(at.root, at.asked.commit_to, message)
        line = f"{made} on {at.asked.commit_to}" if made else "nothing new to commit"
        get_run_logger().info("results: %s", line)


@contextmanager
def at_work() -> Iterator[None]:
    """Turn what else goes wrong into a failure: past the checks it is no mistake of the user's.

    Raises:
        StageFailedError: for a mistake that shows only now, such as a push that git refuses.
    """
    try:
        yield
    except ValueError as error:
        raise StageFailedError(str(error)) from error


@contextmanager
def _one_signal() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end what runs, and none after it disturb that end.

    Prefect puts its own handler in place for as long as a flow runs, so this is needed within too.
    """
    usual = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread():
        usual = {}

    def end(number: int, frame: FrameType | None) -> None:
        for one in usual:
            signal.signal(one, signal.SIG_IGN)
        before = usual[signal.Signals(number)]
        if callable(before):
            before(number, frame)
        raise TerminationSignal(signal=number)

    for one, before in usual.items():
        if before != signal.SIG_IGN:  # as under nohup
            signal.signal(one, end)
    try:
        yield
    finally:
        for one, before in usual.items():
            signal.signal(one, before)


def _server() -> AbstractContextManager[None]:
    """Return what runs a server for this process, unless one is configured."""
    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return nullcontext()
    from flows.server import own_server  # half of all that a flow imports

    return own_server()


def finish(act: Flow[..., State[Any]], given: dict[str, Any]) -> None:
    """Run a flow from the command line; exit with 2 for a mistake of the user's, 1 for a failure.

    Ctrl-C and SIGTERM end it with 128 + the signal's number, as a shell says it.

    Args:
        act: the flow.
        given: its parameters.
    """
    try:
        act.validate_parameters(given)  # the run would say it in many lines, and fail
    except ParameterTypeError as error:
        cause = error.__context__  # Prefect's own text has pydantic's words
        mistakes = cause.errors() if isinstance(cause, ValidationError) else []
        said = [f"{dotted(one['loc'])}: {refusal([one])}" for one in mistakes]
        print(f"error: {'; '.join(said) or cut(shown(str(error)))}", file=sys.stderr)
        raise SystemExit(2) from None
    try:
        with _one_signal(), _server():
            state: Any = act(**given, return_state=True)
    except (KeyboardInterrupt, TerminationSignal) as error:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)  # there is nothing left to save
        print("error: interrupted; the same command goes on where it was", file=sys.stderr)
        raise SystemExit(128 + getattr(error, "signal", signal.SIGINT)) from None
    if not state.is_completed():
        print(f"error: {state.message}", file=sys.stderr)
        raise SystemExit(2 if state.name == REFUSED else 1)
