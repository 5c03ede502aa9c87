"""What commands write where a person says: nothing that is there is replaced without being asked."""

from __future__ import annotations

from pathlib import Path

__all__ = ["require_free"]


def require_free(out: Path, force: bool, mark: str | None = None) -> None:
    """Refuse to write where something is, unless it may be replaced.

    Args:
        out: what is to be written.
        force: whether an earlier export there may be replaced.
        mark: of a folder, the file in it by which an earlier export is known; None if `out` is to be
            a file.

    Raises:
        ValueError: if there is something else, or something at all without `force`.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise ValueError(f"{out}: exists already, allowed: a new name, or --force to replace it")
    if mark is None and not out.is_file():
        raise ValueError(f"{out}: is no file, allowed: a new name, or a file to replace")
    if mark is not None and not (out.is_dir() and not out.is_symlink() and (out / mark).is_file()):
        raise ValueError(f"{out}: is no earlier export, which holds {mark}, allowed: a new name")
