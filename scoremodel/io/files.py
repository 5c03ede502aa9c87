"""Writing files so that a reader sees the old content or the new, never half of one; and what is damaged."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["AGAIN", "DamagedError", "atomic_folder", "atomic_path", "write_text"]

AGAIN = "remove it and run dvc repro, or restore it from a copy"
"""What to do about a damaged file that a stage made."""


class DamagedError(ValueError):
    """A file that is not what was written: cut off, changed, or another kind of file.

    Args:
        path: the file.
        what: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, remedy: str = AGAIN) -> None:
        super().__init__(f"{os.fspath(path)}: damaged ({what}); {remedy}")
        self.what = what


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Args:
        path: the file to write; its folder is made if it is missing.

    Yields:
        The temporary path, in the same folder and with the same ending as `path`.

    Raises:
        OSError: if the file cannot be written, naming `path`; what was there before stays.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary):
            raise
        # A full disk names no file, and numpy then not even a number.
        number, said = error.errno or errno.EIO, error.strerror or "not written whole"
        raise OSError(number, said, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside `path` that replaces it when the block ends without an error.

    Args:
        path: the folder to write; what is in it before is no longer there then.

    Yields:
        The temporary folder. What a killed process has left of one is removed first.
    """
    target = Path(path)
    new, old = (target.with_name(f".{word}-{target.name}") for word in ("new", "old"))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
