"""Hashes: of files, as DVC takes them, and of what a result depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["content_hash", "file_hash", "require_file"]


def file_hash(path: Path) -> str:
    """Return the MD5 of a file, the same that DVC records."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def content_hash(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_file(where: str, path: str, sha256: str) -> None:
    """Refuse a file that is not there, or is another one than it should be.

    Args:
        where: the block of keys that names the file.
        path: the file.
        sha256: the checksum it must have.

    Raises:
        ValueError: naming the key, the file and what it is.
    """
    if not Path(path).is_file():
        raise ValueError(f"{where}.path: {path!r} is no file")
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(
            f"{where}.sha256: {path} has {found}, not {sha256}: broken, or another file"
        )
