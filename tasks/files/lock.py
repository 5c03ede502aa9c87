"""What DVC has written down of its stages' last runs: `dvc.lock`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from tasks.files.documents import read_yaml

__all__ = ["read_lock"]


class _File(TypedDict):
    path: str
    md5: str


class _Stage(TypedDict):
    cmd: str | list[str]
    deps: NotRequired[list[_File]]
    outs: NotRequired[list[_File]]
    params: NotRequired[dict[str, dict[str, Any]]]


class _Lock(TypedDict):
    stages: dict[str, _Stage]


def read_lock(source: str | Path = Path("dvc.lock"), name: str | None = None) -> dict[str, Any]:
    """Return the content of `dvc.lock`.

    Args:
        source: its text or its path.
        name: what a text is called, for errors.

    Returns:
        The content.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is damaged, or a merge left its marks in it.
    """
    called = name or str(source if isinstance(source, Path) else "dvc.lock")
    lock: dict[str, Any] = read_yaml(
        source, called, _Lock, "restore it from git (git restore dvc.lock), and run dvc repro"
    )
    return lock
