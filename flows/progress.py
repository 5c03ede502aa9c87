"""How far a stage is, from its progress bar, as an artifact that moves and says that it is alive."""

from __future__ import annotations

import contextvars
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound

from tasks.files.dvc import StoppedError

__all__ = ["PULSE", "lookout", "meanwhile", "patiently", "progress", "state_of"]

Result = TypeVar("Result")

PULSE = float(os.environ.get("SCOREMODEL_PULSE", 10.0))
"""Seconds between two signs of life of a stage."""

# The server may be restarting; what runs does not depend on it.
_AWAY = (httpx.HTTPError, ObjectNotFound, RuntimeError)
_LOOK = 3.0  # seconds between two looks at whether somebody cancelled
_PERCENT = re.compile(r"\b(\d{1,3})%\|")


def patiently(
    ask: Callable[[], Result], stop: threading.Event | None = None, seconds: float = math.inf
) -> Result:
    """Return the server's answer, however long a restart of it takes.

    Args:
        ask: asks.
        stop: ends the waiting when it is set.
        seconds: how long to wait at most.

    Returns:
        The answer.

    Raises:
        StoppedError: if `stop` was set.
        httpx.HTTPError: if the server refuses, or does not answer for so long.
    """
    stop, began = stop or threading.Event(), time.monotonic()
    while not stop.is_set():
        try:
            return ask()
        except httpx.HTTPError as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if refused or time.monotonic() - began > seconds:
                raise
            stop.wait(2.0)
    raise StoppedError("stopped while the server did not answer")


@contextmanager
def meanwhile(act: Callable[[], object], seconds: float, patience: float = 0.0) -> Iterator[None]:
    """Do something every so many seconds, in a thread, as long as the context lasts.

    Args:
        act: does it.
        seconds: between two times.
        patience: seconds to wait for the last time at the end.

    Yields:
        Nothing.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            act()

    # In the caller's context: outside it Prefect would look for, or start, another server.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(repeat,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=patience)


@contextmanager
def lookout(
    ended: threading.Event, own: str | None, parent: str | None = None, helped: UUID | None = None
) -> Iterator[None]:
    """See to it that work ends when somebody ends the flow run that it is for.

    Prefect stops the process of a run that one of its workers started; this is for those that were
    started by hand, and for stages on other machines.

    Args:
        ended: is set if the flow run `own` was ended by others, or `parent` was cancelled; a parent
            that died leaves its stages to the next one. And if `helped` has ended.
        own: the flow run that does the work, None for no look.
        parent: the flow run that asked for it.
        helped: the flow run of whose work this does a part.

    Yields:
        Nothing.
    """

    def look() -> None:
        with suppress(*_AWAY):
            mine, theirs, done = state_of(own), state_of(parent), state_of(helped)
            if done and done.is_final():
                ended.set()
            if (mine and (mine.is_final() or mine.is_cancelling())) or (
                theirs and (theirs.is_cancelled() or theirs.is_cancelling())
            ):
                ended.set()

    if own is None:
        yield
    else:
        with meanwhile(look, _LOOK):
            yield


def state_of(run: str | UUID | None) -> State[Any] | None:
    """Return the state of a flow run, None for that of none."""
    if run is None:
        return None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(run))).state


@contextmanager
def progress(stage: str, revision: str) -> Iterator[Callable[[str], None]]:
    """Show how far a stage is by an artifact that is touched regularly, in a flow or a task.

    Without a server to talk to, the stage goes on unseen. At the end it is deleted: many of 100 % would
    hide what a run has found.

    Args:
        stage: the stage's name.
        revision: the short commit.

    Yields:
        What takes from a line of the stage's progress bar the share of the work that it tells.
    """
    percent, artifact = 0.0, None

    def follow(line: str) -> None:
        nonlocal percent
        if found := _PERCENT.search(line):
            percent = min(float(found[1]), 100.0)

    def touch() -> None:
        nonlocal artifact
        if artifact is not None:
            with suppress(*_AWAY), get_client(sync_client=True) as client:
                client.update_artifact(artifact, ArtifactUpdate(data=percent))
            return
        with suppress(httpx.HTTPError):  # the server may be restarting; the next time tries again
            made: Any = create_progress_artifact(
                progress=percent,
                key=re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-"),
                description=f"{stage} · {revision} on {socket.gethostname()}",
            )
            artifact = made

    touch()
    try:
        with meanwhile(touch, PULSE, PULSE + 5):
            yield follow
    finally:
        if artifact is not None:
            with suppress(*_AWAY), get_client(sync_client=True) as client:
                client.delete_artifact(artifact)
