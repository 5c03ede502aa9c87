"""How far a stage is, from its progress bar, as an artifact that moves and says that it is alive."""

from __future__ import annotations

import contextvars
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound

from tasks.files.dvc import StoppedError

__all__ = ["PULSE", "Lookout", "Progress", "patiently"]

Result = TypeVar("Result")

PULSE = float(os.environ.get("SCOREMODEL_PULSE", 10.0))
"""Seconds between two signs of life of a stage."""

# The server may be restarting; what runs does not depend on it.
_AWAY = (httpx.HTTPError, ObjectNotFound, RuntimeError)
_LOOK = 3.0  # seconds between two looks at whether somebody cancelled
_PERCENT = re.compile(r"\b(\d{1,3})%\|")


def _artifact_key(name: str) -> str:
    """Return a name in the letters that an artifact's key may have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


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


class Lookout:
    """Sees to it that work ends when somebody ends the flow run that it is for.

    Used as a context. Prefect stops the process of a run that one of its workers started; this is
    for those that were started by hand, and for stages on other machines.

    Args:
        ended: is set if the flow run `own` was ended by others, or `parent` was cancelled; a parent
            that died leaves its stages to the next one.
        own: the flow run that does the work, None for no look.
        parent: the flow run that asked for it.
    """

    def __init__(self, ended: threading.Event, own: str | None, parent: str | None = None) -> None:
        self.ended, self.own, self.parent = ended, own, parent
        self._over = threading.Event()
        # In the caller's context: outside it Prefect would look for, or start, another server.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._look,), daemon=True)

    def __enter__(self) -> Self:
        if self.own is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            try:
                own, parent = (_state(run) for run in (self.own, self.parent))
            except _AWAY:
                continue
            if (own and (own.is_final() or own.is_cancelling())) or (
                parent and (parent.is_cancelled() or parent.is_cancelling())
            ):
                if not self._over.is_set():
                    self.ended.set()
                return


def _state(run: str | None) -> State[Any] | None:
    if run is None:
        return None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run)).state


class Progress:
    """A progress artifact that follows a stage's bar, and is touched regularly while it runs.

    Used as a context, in a flow or a task. Without a server to talk to, the stage goes on unseen.
    At the end it is deleted: many of 100 % would hide what a run has found.

    Args:
        stage: the stage's name.
        revision: the short commit.
    """

    def __init__(self, stage: str, revision: str) -> None:
        self.stage, self.revision = stage, revision
        self.percent = 0.0
        self._artifact: UUID | None = None
        self._over = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._beat,), daemon=True)

    def __enter__(self) -> Self:
        self._begin()
        self._thread.start()
        return self

    def _begin(self) -> None:
        try:
            made: Any = create_progress_artifact(
                progress=self.percent,
                key=_artifact_key(self.stage),
                description=f"{self.stage} · {self.revision} on {socket.gethostname()}",
            )
        except httpx.HTTPError:
            return  # the server may be restarting; the next beat tries again
        self._artifact = made

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=PULSE + 5)
        if self._artifact is not None:
            with suppress(*_AWAY), get_client(sync_client=True) as client:
                client.delete_artifact(self._artifact)

    def follow(self, line: str) -> None:
        """Take the share of the work that a line of a progress bar tells."""
        if found := _PERCENT.search(line):
            self.percent = min(float(found[1]), 100.0)

    def _beat(self) -> None:
        while not self._over.wait(PULSE):
            self._touch()

    def _touch(self) -> None:
        if self._artifact is None:
            self._begin()
            return
        with suppress(*_AWAY), get_client(sync_client=True) as client:
            client.update_artifact(self._artifact, ArtifactUpdate(data=self.percent))
