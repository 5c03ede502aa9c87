"""Whole configurations by name: YAML in `presets/`, laid over `params.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.params.errors import ParamsError, cut, of_names, shown
from tasks.params.filled import lay_over
from tasks.params.load import checked, require_plain
from tasks.params.read import read_yaml
from tasks.params.schema import Params

__all__ = ["PRESETS", "arguments", "as_override", "laid_over", "listing", "overrides"]

PRESETS = Path("presets")


def _paths() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}


def listing() -> str:
    """Return every preset's name with the line that it says of itself, its first comment."""
    names = _paths()
    width = max(map(len, names), default=0)
    lines = []
    for name, path in names.items():
        comments = re.findall(
            r"^# (?!yaml-language-server)(.*)$", path.read_text("utf-8", "replace"), re.M
        )
        lines.append(f"{name:{width}}  {comments[0] if comments else ''}\n")
    return "".join(lines)


def _content(name: str) -> Mapping[str, Any]:
    paths = _paths()
    if name not in paths:
        raise ParamsError(f"preset: {shown(name)} is not allowed, allowed: {cut(of_names(paths))}")
    content = read_yaml(paths[name])
    if not isinstance(content, Mapping):
        raise ParamsError(
            f"{paths[name]}: {shown(content)} is not allowed, allowed: a block of keys"
        )
    return content


def laid_over(name: str, params: Path = Path("params.yaml")) -> Params:
    """Return the parameters with a preset laid over them, after checking them.

    Args:
        name: the preset's.
        params: the file that it is laid over.

    Returns:
        All parameters.

    Raises:
        ParamsError: if there is no such preset, or one line for each mistake in it.
    """
    below = read_yaml(params)
    require_plain(below, params)  # which is not the preset's mistake
    return checked(lay_over(below, _content(name)), PRESETS / f"{name}.yaml")


def overrides(name: str) -> dict[str, Any]:
    """Return what a preset changes.

    Args:
        name: the preset's.

    Returns:
        Dotted key of `params.yaml` → value; lists, and blocks that have a kind, are values.

    Raises:
        ParamsError: if there is no such preset, or it is no block of keys.
    """
    return dict(_leaves(_content(name)))


def _leaves(block: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        here = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and value and not {"kind", "like"} & value.keys():
            yield from _leaves(value, here)
        else:
            yield here, value


def as_override(key: str, value: Any) -> str:
    """Return one change as DVC's `--set-param` takes it, whether or not the file has the key yet.

    Args:
        key: a dotted key of `params.yaml`.
        value: its value.

    Returns:
        "++key=value" in Hydra's grammar: the two plus signs add the key where only the defaults have it.
    """
    return f"++{key}={_hydra(value)}"


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_hydra(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    # A backslash counts before a quote only.
    text = re.sub(r"(\\*)'", r"\1\1\'", str(value))
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f"'{text}'"


def arguments(name: str) -> str:
    """Return a preset as arguments of `dvc exp run`, each ended by a zero byte, for `xargs -0`.

    Args:
        name: the preset's.

    Returns:
        The arguments.

    Raises:
        ParamsError: as `laid_over`, before anything runs.
    """
    laid_over(name)
    below, found = read_yaml(Path("params.yaml")), []
    for key, value in overrides(name).items():
        if _replaces(below, key.split("."), value):
            found.append(f"~{key}")
        found.append(as_override(key, value))
    return "".join(f"--set-param\0{one}\0" for one in found)


def _replaces(below: Any, keys: Sequence[str], value: Any) -> bool:
    """Return whether a block is of another kind than the one below, with which Hydra would mix it."""
    for key in keys:
        below = below.get(key) if isinstance(below, Mapping) else None
    if not isinstance(below, Mapping) or not isinstance(value, Mapping):
        return False
    return "kind" in below and value.get("kind", below["kind"]) != below["kind"]
