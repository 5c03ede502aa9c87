"""Overrides of `params.yaml` as a form or a command line gives them: dotted key → value."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from tasks.params.errors import ParamsError, dotted, shown
from tasks.params.load import checked, require_plain
from tasks.params.read import parse_yaml, read_text
from tasks.params.schema import Params

__all__ = ["combinations", "edited", "overridden"]

_MOST = 10_000
_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PATHS = ("checkpoints.folder", "evaluation.extractor.path")


def combinations(grid: dict[str, list[Any]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the overrides of each experiment: every combination of `grid`, and each of `runs`.

    Args:
        grid: key → values, such as {"models.ve.training.steps": [500, 1000]}.
        runs: key → value of each further experiment.

    Returns:
        One dictionary an experiment.

    Raises:
        ValueError: if there is none, or a key of the grid has no values.
    """
    for key, values in grid.items():
        if not values:
            raise ValueError(
                f"grid: {dotted([key])}: has no values, allowed: a list with at least one"
            )
    count = math.prod(map(len, grid.values())) if grid else 0
    if count + len(runs) > _MOST:
        raise ValueError(
            f"grid, runs: {count + len(runs):,} experiments are not allowed, allowed: at most {_MOST:,}"
        )
    product = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ] if grid else []  # fmt: skip
    found = [*product, *runs]
    if not found:
        raise ValueError("grid, runs: both are empty, allowed: at least one experiment")
    return found


def edited(text: str, values: dict[str, Any]) -> str:
    """Return the text of `params.yaml` with some values replaced, its comments kept.

    Args:
        text: the file's.
        values: dotted key → value; a key that only the defaults have is added.

    Returns:
        The new text.

    Raises:
        ParamsError: for text that DVC would look up, or a file that is no block of keys.
        ValueError: for a key that is none or that `params.yaml` does not have, or a path that leads out
            of the workspace.
    """
    require_plain(values, "overrides")
    yaml = YAML()
    yaml.width = 4096
    if not isinstance(parse_yaml(text, "params.yaml"), dict):
        raise ParamsError("params.yaml: is no block of keys")
    content = yaml.load(text)
    for key, value in values.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{shown(key)} is not allowed, allowed: a key of params.yaml, a.b.c")
        for inside, path in _paths(key, value):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(
                    f"{inside}: {shown(path)} is not allowed in a flow, allowed: a path in the workspace"
                )
        block, names = content, key.split(".")
        if names[0] not in content:
            raise ValueError(f"params.yaml: has no key {shown(key)} to set")
        for name in names[:-1]:
            if not isinstance(block.get(name), dict):
                block[name] = {}
            block = block[name]
        block[names[-1]] = value
    out = io.StringIO()
    yaml.dump(content, out)
    return out.getvalue()


def overridden(path: Path, values: dict[str, Any]) -> Params:
    """Return the parameters with some values replaced, after checking them; the file stays as it is.

    Args:
        path: a `params.yaml`.
        values: dotted key → value.

    Returns:
        All parameters.

    Raises:
        ParamsError: one line for each mistake.
        ValueError: as `edited`.
    """
    return checked(parse_yaml(edited(read_text(path), values), path), path)


def _paths(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the paths that an override sets, also inside a block."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _paths(f"{key}.{name}", inside)
    elif key in _PATHS and isinstance(value, str):
        yield key, value
