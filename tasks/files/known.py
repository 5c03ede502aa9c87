"""What is known of a data set before its stages run: the card of the last `prepare`, if it still holds.

A card counts only if `dvc.lock` says that it was made of the source as it is now. Of another one it
would refuse what is right. Where there is none, small sources are read themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.files.arrays import read_card
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration

__all__ = ["known_card", "same_folder"]

_LOCK = Path("dvc.lock")
_SMALL = 2**20  # bytes of a source that are hashed; of more their number and the files' is compared
_GENERATED = ("digits", "gaussian_mixture", "two_moons")
_POINTS = 200_000


def known_card(
    files: Configuration, how: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the card that a data set has, or will have, None if that is not known.

    Args:
        files: says which data set.
        how: how it is split, as `check` resolves it.
        source: what its folder says of its source, with its kind.

    Returns:
        The card; its "count" is None where it was split otherwise.

    Raises:
        ParamsError: if a small source does not have the split that is asked for.
        ValueError: if a small source cannot be read.
    """
    card = _last_card(files, how)
    if card is None and source.get("kind") in _GENERATED:
        if not isinstance(points := source.get("count", 0), int) or points > _POINTS:
            return None
        from tasks.prepare import card_of, read_source, split

        raw = read_source(files.raw)
        rows = split(raw, how["held_out"], how.get("limit"), files.dataset, how["seed"])
        card = card_of(files.dataset, raw, *rows, digest="")
    return card


def _last_card(files: Configuration, how: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the card on disk, if it was made of this source."""
    try:
        entry = _entry(f"prepare@{files.dataset}")
        before = {one["path"]: one for one in entry["deps"]}
        made = {one["path"]: one for one in entry["outs"]}
        if made[str(files.card)]["md5"] != file_hash(files.card):
            return None
        if not same_folder(files.raw, before[str(files.raw)]):
            return None
        text = json.dumps(how, indent=1) + "\n"
        split = before[f"artifacts/resolved/datasets/{files.dataset}.json"]["md5"]
        card = read_card(files.card)
    except (OSError, ValueError, KeyError, TypeError):  # no lock, no card, or damaged ones
        return None
    if split != hashlib.md5(text.encode()).hexdigest():
        card["count"] = None
    return card


def _entry(stage: str) -> dict[str, Any]:
    """Return what `dvc.lock` says of a stage; the rest of a long file is not parsed."""
    lines = _LOCK.read_text(encoding="utf-8").splitlines()
    first = lines.index(f"  {stage}:")
    last = next(
        (n for n in range(first + 1, len(lines)) if not lines[n].startswith("   ")), len(lines)
    )
    entry: dict[str, Any] = YAML(typ="safe", pure=True).load("\n".join(lines[first + 1 : last]))
    return entry


def same_folder(folder: Path, dependency: Mapping[str, Any]) -> bool:
    """Return whether a folder is what `dvc.lock` says that a stage depended on.

    Args:
        folder: the folder.
        dependency: its entry: `md5`, `size` and `nfiles`.

    Returns:
        Whether its hash is that one; of a folder of more than 1 MB, whether it has as many files and
        bytes, which takes no reading.
    """
    count = size = 0
    for path in folder.rglob("*"):  # of a million files none is kept
        if path.is_file():
            count, size = count + 1, size + path.stat().st_size
    if (count, size) != (dependency["nfiles"], dependency["size"]):
        return False
    if size > _SMALL:
        return True
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [
        {"md5": file_hash(path), "relpath": path.relative_to(folder).as_posix()} for path in paths
    ]
    listed.sort(key=lambda one: one["relpath"])
    digest = hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return bool(dependency["md5"] == f"{digest}.dir")
