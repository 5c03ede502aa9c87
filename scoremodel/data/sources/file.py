"""The file or folder that a source's `path` names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from scoremodel.bounds import shown
from scoremodel.data.sources.folder import said_path

__all__ = ["checked_path"]


def checked_path(path: str, sha256: str | None, endings: Sequence[str], folders: bool) -> Path:
    """Return a path of which it is known, before anything is read of it, that it is what was meant.

    Args:
        path: the file or folder.
        sha256: of the file, in hexadecimal digits; None if nobody says it.
        endings: that a file's name may have.
        folders: whether it may be a folder.

    Returns:
        The path.

    Raises:
        ValueError: if there is none such, or the file is another than the SHA-256 says.
    """
    here, wanted = Path(path), sha256 and sha256.lower()
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", wanted or ""):
        raise ValueError(f"sha256: {shown(sha256)} is not allowed, allowed: 64 hexadecimal digits")
    allowed = ", ".join(endings) + (" or a folder" if folders else "")
    try:
        if here.is_dir():
            if not folders:
                raise ValueError(f"path: {said_path(here)} is a folder, allowed: {allowed}")
            if sha256 is not None:
                raise ValueError(f"sha256: {said_path(here)} is a folder, allowed: of a file")
            return here
        if not here.is_file():
            raise ValueError(f"path: {said_path(here)}: no such file, allowed: {allowed}")
        if here.suffix.lower() not in endings:
            raise ValueError(f"path: {said_path(here)} is of another kind, allowed: {allowed}")
        with here.open("rb") as file:
            found = sha256 and hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a name too long for the file system, or no permission
        raise ValueError(
            f"path: {shown(path)} cannot be read ({error.strerror}), allowed: {allowed}"
        ) from error
    if found != wanted:
        raise ValueError(f"sha256: {said_path(here)} has {found}, and {wanted} was wanted")
    return here
