"""Seconds that a stage took, kept beside the files it made.

Seconds never repeat, so they may not enter a file that DVC compares by hash. They lie in a
git-ignored folder under the hash of the file that took them to make, from which the ledger reads
them once: a file restored from a remote has none, and a changed file has other ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NotRequired

from pydantic import FiniteFloat
from typing_extensions import TypedDict

from scoremodel.io.files import write_text
from tasks.files.documents import read_json
from tasks.files.hashes import file_hash
from tasks.files.layout import TIMINGS

__all__ = ["Timing", "read_timing", "write_timing"]


class Timing(TypedDict):
    """What it took to make a file, by a training or by samples."""

    device: str
    seconds: NotRequired[FiniteFloat]
    seconds_per_1000: NotRequired[FiniteFloat]


def _path(digest: str) -> Path:
    # In a person's workspace also where `dvc exp run --temp` runs in a folder that goes away.
    return Path(os.environ.get("DVC_ROOT", "."), TIMINGS, f"{digest}.json")


def write_timing(made: Path, timing: dict[str, Any]) -> None:
    """Remember `timing` as what it took to make the file `made`."""
    write_text(_path(file_hash(made)), json.dumps(timing, sort_keys=True) + "\n")


def read_timing(digest: str) -> dict[str, Any] | None:
    """Return what it took to make the file with this MD5, None if that is not known here."""
    try:
        timing: dict[str, Any] = read_json(_path(digest), Timing, "remove it: it is not needed")
    except FileNotFoundError:
        return None
    return timing
