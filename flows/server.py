"""The Prefect server of a flow that was started by hand where none is configured.

Prefect starts a temporary one itself, among the flow's own processes: Ctrl-C ends it together with
the flow, which then cannot say how it ended and tries for minutes, and `kill -9` of the flow leaves
it behind. This one is out of the terminal's reach, and ends with the flow however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from tasks.files.dvc import leashed

__all__ = ["own_server"]

_START = 120  # seconds; a first start makes the database
_LAST_WORDS = 5.0  # seconds for what has not been sent yet


class _Own(SubprocessASGIServer):
    """Prefect's temporary server, in a session of its own and on a leash.

    There is one in a process: Prefect's clients find it where they would start theirs.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        app = ("--factory", "prefect.server.api.server:create_app", "--lifespan", "on")
        address = ("--host", "127.0.0.1", "--port", str(self.port))
        return subprocess.Popen(
            leashed([sys.executable, "-m", "uvicorn", *app, *address, "--log-level", "error"]),
            env=os.environ
            | {
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
            }
            | get_current_settings().to_environment_variables(exclude_unset=True),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextmanager
def own_server() -> Iterator[None]:
    """Run a Prefect server for this process.

    Yields:
        Nothing, once the server answers.
    """
    own = _Own()
    try:
        # By this thread: Linux takes the end of the one that started it for the end of the parent.
        own.start(timeout=_START)
        yield
    finally:
        APILogWorker.drain_all(timeout=_LAST_WORDS)
        EventsWorker.drain_all(timeout=_LAST_WORDS)
        own.stop()
