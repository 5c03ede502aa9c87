"""Where an unfinished training keeps its state, and how it is told to stop.

The folder is named by the hash of all that the run depends on: a run after an edit of its parameters,
its data or its code is another run, and must not go on from this one's state.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import scoremodel
from tasks.hashes import content_hash, file_hash
from tasks.layout import Configuration
from tasks.params import Params

__all__ = ["state_folder", "stop_on_signals"]


def state_folder(
    configuration: Configuration, params: Params, data_sha256: str, environment: str
) -> Path:
    """Return the folder of one training run's checkpoints.

    Args:
        configuration: which model on which data, and its seed.
        params: all parameters.
        data_sha256: hash of the data.
        environment: what of the machine and the software changes the numbers.

    Returns:
        A folder that is this run's alone; it need not exist.
    """
    library = Path(scoremodel.__file__).parent
    depends_on: dict[str, Any] = {
        "model": params.models[configuration.model].model_dump(),
        "train_seed": configuration.train_seed,
        "data": data_sha256,
        "environment": environment,
        "code": [file_hash(path) for path in sorted(library.rglob("*.py"))],
    }
    name = f"{configuration.model_name}-{content_hash(depends_on)[:16]}"
    # DVC names the workspace that a person works in, where `dvc exp run --temp` runs in another one.
    return Path(os.environ.get("DVC_ROOT", "."), params.checkpoints.folder, name)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or Ctrl-C into a question's answer; the second acts as usual.

    Yields:
        A function that says whether one has come.
    """
    asked = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: FrameType | None) -> None:
        asked.set()
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
