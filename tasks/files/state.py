"""Where unfinished work keeps its state, and how it is told to stop.

The folder is named by the hash of all that the work depends on: after an edit of its parameters, its
data or its code it is other work, and must not go on from this one's state.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tasks.files.hashes import content_hash
from tasks.files.resolved import resolved

__all__ = ["state_folder", "stop_on_signals"]


def state_folder(name: str, depends_on: Mapping[str, Any]) -> Path:
    """Return the folder in which a stage keeps what is finished of its work.

    Args:
        name: what the work is called, for people.
        depends_on: everything that its result depends on, its code too, as JSON.

    Returns:
        A folder that is this work's alone; it need not exist.
    """
    unique = f"{name}-{content_hash(depends_on)[:16]}"
    # DVC names the workspace that a person works in, where `dvc exp run --temp` runs in another one.
    root = os.environ.get("DVC_ROOT", ".")
    return Path(root, resolved("keeping")["checkpoints"]["folder"], unique)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a question's answer; a second Ctrl-C acts as usual.

    A second SIGTERM does not: Linux sends one for each thread of a parent that dies, and what is saved
    meanwhile would be lost.

    Yields:
        A function that says whether one has come.
    """
    asked = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: FrameType | None) -> None:
        asked.set()
        if number == signal.SIGINT:
            signal.signal(number, usual[signal.SIGINT])

    for number in usual:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
