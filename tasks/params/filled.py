"""What `params.yaml` leaves to its defaults, filled in; and where each value stands in the file.

    defaults: model, sampler     what every model and every sampler has
    models.NAME, samplers.NAME   what differs; `like: OTHER` takes another one's block first
    active.samplers: NAME_N      the sampler NAME with N steps

A block with a `kind` is laid over one of the same kind key by key, and replaces one of another.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.params.errors import Located

__all__ = ["Path", "filled", "lay_over", "walk"]

Path = tuple[str | int, ...]
"""Where a value stands: the keys that lead to it."""

_WITH_STEPS = re.compile(r"(?P<name>.+)_(?P<steps>[0-9]{1,15})")


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of every mapping, list and leaf inside a value, itself first."""
    yield path, value
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, one in value.items() if isinstance(value, Mapping) else ():
        yield from walk(one, (*path, key))


def lay_over(base: Any, over: Any) -> Any:
    """Return `base` with what `over` says instead; neither is changed.

    Args:
        base: a value; blocks of keys are taken over key by key.
        over: the value that counts where both say something. A block of another `kind` replaces.

    Returns:
        A value of its own.
    """
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return copy.deepcopy(over)
    if "kind" in base and over.get("kind", base["kind"]) != base["kind"]:
        return copy.deepcopy(over)
    return copy.deepcopy(dict(base)) | {
        key: lay_over(base[key], value) if key in base else copy.deepcopy(value)
        for key, value in over.items()
    }


def filled(raw: Any) -> tuple[Any, dict[Path, Path]]:
    """Return the whole of what a file says, and where in the file each filled-in value stands.

    Args:
        raw: the content of `params.yaml`.

    Returns:
        The content without `defaults:` and `like:`, every active sampler a block of its own; and
        path here → path in the file, for models and samplers. What has not the form of blocks is left
        as it is, for the schema to refuse.

    Raises:
        Located: for a `like:` that names no block, or leads in a circle.
    """
    origins: dict[Path, Path] = {}
    if not isinstance(raw, Mapping):
        return raw, origins
    whole = {key: copy.deepcopy(value) for key, value in raw.items() if key != "defaults"}
    for key in ("models", "samplers"):
        blocks = raw.get(key)
        common = key.removesuffix("s")
        if not isinstance(blocks, Mapping):
            continue
        for name, block in _with_steps(key, blocks, raw.get("active")).items():
            layers: list[tuple[Path, Any]] = [
                (("defaults", common), _block(raw.get("defaults"), common))
            ]
            layers += _chain(key, name, block, blocks)
            merged: Any = {}
            for place, layer in layers:
                merged = lay_over(merged, {} if layer is None else layer)
                for path, _ in walk(layer):
                    origins[(key, name, *path)] = (*place, *path)
            if isinstance(merged, dict):
                merged.pop("like", None)
                if merged.get("pretrained"):
                    _refuse_training(layers[1:])
                if key == "samplers":
                    merged.setdefault("kind", _kind_of(layers))
            whole[key][name] = merged
            if name not in blocks:
                index = raw["active"][key].index(name)
                origins[(key, name, "steps")] = ("active", key, index)
    return whole, origins


def _refuse_training(layers: list[tuple[Path, Any]]) -> None:
    """Refuse what a pretrained model's own blocks say of a training: its folder says what it is."""
    for place, layer in layers:
        for key in ("training", "network", "preconditioning", "energy"):
            if isinstance(layer, Mapping) and key in layer:
                allowed = "no such key beside pretrained: the model's own files say it"
                raise Located(f"{place[0]}.{place[1]}.{key}", layer[key], allowed)


def _kind_of(layers: list[tuple[Path, Any]]) -> str:
    # A sampler's block is of the kind that it is named after, or that the one it is like is.
    return str(layers[1][0][1])


def _chain(key: str, name: str, block: Any, blocks: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    """Return the block and those that it is like, the first of them first, each with its place."""
    chain: list[tuple[Path, Any]] = [((key, name), block)]
    seen = [name]
    while isinstance(block, Mapping) and "like" in block:
        other = block["like"]
        if not isinstance(other, str) or other not in blocks or other in seen:
            allowed = ", ".join(sorted(set(blocks) - set(seen)))
            raise Located(f"{key}.{seen[-1]}.like", other, f"one of: {allowed}")
        block = blocks[other]
        seen.append(other)
        chain.insert(0, ((key, other), block))
    return chain


def _block(defaults: Any, key: str) -> Any:
    found = defaults.get(key) if isinstance(defaults, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _with_steps(key: str, blocks: Mapping[str, Any], active: Any) -> dict[str, Any]:
    """Return the blocks, and of active samplers that are called NAME_N the block NAME with N steps."""
    found = dict(blocks)
    names = active.get(key) if key == "samplers" and isinstance(active, Mapping) else None
    for name in names if isinstance(names, list) else ():
        match = _WITH_STEPS.fullmatch(name) if isinstance(name, str) else None
        if match and name not in blocks and match["name"] in blocks:
            found[name] = {"like": match["name"], "steps": int(match["steps"])}
    return found
