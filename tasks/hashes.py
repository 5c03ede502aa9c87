"""Hashes: of files, as DVC takes them, and of what a result depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["content_hash", "file_hash"]


def file_hash(path: Path) -> str:
    """Return the MD5 of a file, the same that DVC records."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def content_hash(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
