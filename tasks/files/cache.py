"""What of DVC's cache is needed: by any commit of a repository, or by one of its worktrees as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from typing_extensions import TypedDict

from tasks.files.documents import read_json
from tasks.files.git import git

__all__ = ["unneeded"]

_HASH = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
_NAMED = ("*dvc.lock", "*.dvc")  # the files in which DVC names what it needs


class _Entry(TypedDict):
    md5: str


def unneeded(repository: Path, cache: Path, without: Iterable[str]) -> Iterator[Path]:
    """Yield the files of a cache that nothing in a repository names.

    `dvc gc` knows no references but branches, tags and experiments, and gives up at the first commit
    of whose folders the cache has no list, which is usual where a worker has run a few stages.

    Args:
        repository: the workspace, or a mirror.
        cache: the folder of DVC's cache.
        without: references that do not count, as they will be gone.

    Yields:
        Their paths.
    """
    texts = [*_committed(repository, without), *_checked_out(repository)]
    needed = {found for text in texts for found in _HASH.findall(text)}
    objects = cache / "files/md5"
    for name in [name for name in needed if name.endswith(".dir")]:
        with suppress(FileNotFoundError):
            listed = read_json(objects / name[:2] / name[2:], list[_Entry], "remove it")
            needed |= {entry["md5"] for entry in listed}
    for path in objects.glob("??/*"):
        name = path.parent.name + path.name
        if _HASH.fullmatch(name) and name not in needed:
            yield path


def _committed(repository: Path, without: Iterable[str]) -> Iterator[str]:
    commits = [*(f"--exclude={name}" for name in without), "--all", "--full-history"]
    only = ("--objects", "--filter=object:type=blob", "--filter-provided-objects")
    listed = git(repository, "rev-list", *commits, *only, "--no-object-names", "--", *_NAMED)
    blobs = listed.split()
    for begin in range(0, len(blobs), 500):  # a command line is of limited length
        yield git(repository, "show", *blobs[begin : begin + 500])


def _checked_out(repository: Path) -> Iterator[str]:
    for line in git(repository, "worktree", "list", "--porcelain").splitlines():
        folder = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and (folder / ".git").exists():
            listed = git(folder, "ls-files", "-z", "--cached", "--others", "--", *_NAMED)
            paths = [folder / name for name in listed.split("\0") if name]
            for path in (*paths, *folder.glob(".dvc/tmp/exps/**/dvc.lock")):
                if path.is_file():
                    yield path.read_text(encoding="utf-8", errors="replace")
