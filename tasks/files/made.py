"""What one machine tells another of a stage that it has run: the entry of `dvc.lock`, and the seconds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scoremodel.io.files import write_text
from tasks.files.documents import read_json
from tasks.files.dvc import persist
from tasks.files.graph import entries, remember, write_entries
from tasks.files.layout import TIMINGS
from tasks.files.timing import Timing

__all__ = ["made", "take_back"]


def made(root: Path, stage: str) -> dict[str, Any]:
    """Return what is to be told of a stage.

    Args:
        root: the workspace in which it has run.
        stage: its name.

    Returns:
        Its "entry" of `dvc.lock`, and the "timings" of its outputs by their hashes, as far as they are
        known.
    """
    entry, timings = entries(root, (stage,))[stage], {}
    for out in entry.get("outs", []):
        path = root / TIMINGS / f"{out['md5']}.json"
        if path.exists():
            timings[out["md5"]] = read_json(path, Timing, "remove it: it is not needed")
    return {"entry": entry, "timings": timings}


def take_back(
    root: Path,
    stage: str,
    told: dict[str, Any],
    say: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Take what another machine has made, which it has pushed.

    Args:
        root: the workspace that it is for.
        stage: the stage's name.
        told: what `made` returned there.
        say: takes DVC's lines.
        stop: ends it when it is set.

    Raises:
        DvcFailedError: if the outputs cannot be pulled.
        StoppedError: if `stop` was set.
    """
    for digest, timing in told["timings"].items():
        path = root / TIMINGS / f"{digest}.json"
        write_text(path, json.dumps(timing, sort_keys=True) + "\n")
    write_entries(root, {stage: told["entry"]})
    persist("dvc pull", ["pull", "--force", stage], root, say, stop)
    remember(root, stage)
