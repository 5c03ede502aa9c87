"""What a form or a command line may say to a flow, checked before anything else happens.

No parameter reaches a shell: git and DVC get lists of arguments. What could still be taken for an
option, a helper program's name or a path elsewhere is refused here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator

from tasks.params.load import checked, read_yaml
from tasks.params.presets import as_override
from tasks.params.schema import Params

__all__ = [
    "Branch",
    "Budget",
    "Commit",
    "Configurations",
    "Name",
    "Pool",
    "RemoteUrl",
    "Repository",
    "Target",
    "as_overrides",
    "combinations",
    "overridden",
    "seconds",
]

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"


def _check(pattern: str, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value) or ".." in value:
            raise ValueError(f"{value!r} is not allowed, allowed: {what}")
        return value

    return AfterValidator(check)


def _check_repository(value: str) -> str:
    """Refuse what git would take for an option or a helper (`ext::sh -c …`), and secrets."""
    if value.startswith("-") or "::" in value or re.search(r"[\x00-\x20]", value):
        raise ValueError(
            f"{value!r} is not allowed, allowed: a folder, https://HOST/PATH, ssh://HOST/PATH or "
            "git@HOST:PATH"
        )
    return _without_secret(value)


def _without_secret(value: str) -> str:
    # A password, or in an address of the web a token in a name's place.
    scheme = re.match(r"[a-z0-9+]+://", value, re.IGNORECASE)
    if re.match(r"(https?://[^/]*@|[a-z0-9+]+://[^/@]*:[^/]*@)", value, re.IGNORECASE):
        raise ValueError(
            f"{scheme[0] if scheme else ''}… holds a password, which would be shown to everyone who "
            "sees the run; "
            "allowed: an address without one, and the secret in the environment"
        )
    return value


def _check_remote(value: str) -> str:
    if value.startswith("-") or re.search(r"[\x00-\x20]", value):
        raise ValueError(f"{value!r} is not allowed, allowed: an absolute folder, s3://…, ssh://…")
    if "://" not in value and not Path(value).is_absolute():
        raise ValueError(
            f"{value!r} is not allowed: a relative folder is another one in each clone, "
            "allowed: an absolute folder, s3://…, ssh://…"
        )
    return _without_secret(value)


Target = Annotated[str, _check(_WORD, "the name of a stage")]
Commit = Annotated[str, _check(r"[0-9a-f]{40}", "the 40 digits of a git commit")]
Branch = Annotated[
    str, _check(r"[A-Za-z0-9_][A-Za-z0-9_./-]*(?<![./])", "the name of a git branch")
]
Pool = Annotated[str, _check(r"[A-Za-z0-9_][A-Za-z0-9_-]*", "the name of a work pool")]
Name = Annotated[str, _check(r"[A-Za-z0-9_][A-Za-z0-9_-]*", "the name of a block in params.yaml")]
Budget = Annotated[
    str,
    _check(r"[1-9]\d*(\.\d+)?[smhd]", "a number with s, m, h or d, such as 90s, 30m, 2h, 30d"),
]
Repository = Annotated[str, AfterValidator(_check_repository)]
RemoteUrl = Annotated[str, AfterValidator(_check_remote)]
Configurations = list[dict[str, Any]]

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PATHS = ("checkpoints.folder", "evaluation.extractor.path")


def seconds(budget: str) -> float:
    """Return how many seconds a budget is: "30m" → 1800."""
    return float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[budget[-1]]


def combinations(grid: dict[str, list[Any]], runs: Configurations) -> Configurations:
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
            raise ValueError(f"grid: {key}: has no values, allowed: a list with at least one")
    product = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ] if grid else []  # fmt: skip
    found = [*product, *runs]
    if not found:
        raise ValueError("grid, runs: both are empty, allowed: at least one experiment")
    return found


def as_overrides(values: dict[str, Any]) -> list[str]:
    """Return overrides in the syntax of `dvc exp run --set-param`: ["++active.train_seeds=[0,1]"].

    Args:
        values: dotted key → value.

    Returns:
        One text for each.

    Raises:
        ValueError: for a key that is none, or a path that leads out of the workspace.
    """
    found = []
    for key, value in values.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not allowed, allowed: a key of params.yaml, a.b.c")
        if "${" in f"{value}":
            raise ValueError(
                f"{key}: {value!r} is not allowed in a flow: DVC would look up what stands in ${{…}}"
            )
        for inside, path in _paths(key, value):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(
                    f"{inside}: {path!r} is not allowed in a flow, allowed: a path in the workspace"
                )
        found.append(as_override(key, value))
    return found


def _paths(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the paths that an override sets, also inside a block."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _paths(f"{key}.{name}", inside)
    elif key in _PATHS and isinstance(value, str):
        yield key, value


def overridden(values: dict[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Return the parameters as they will be in the experiment, after checking them.

    `params.yaml` itself is read, never written.

    Args:
        values: dotted key → value.
        path: the file.

    Returns:
        All parameters.

    Raises:
        ParamsError: one line for each mistake.
        ValueError: for a key that `params.yaml` does not have.
    """
    content = read_yaml(path)
    as_overrides(values)
    for key, value in values.items():
        block, names = content, key.split(".")
        if names[0] not in content:
            raise ValueError(f"{path}: has no key {key!r} to set")
        for name in names[:-1]:
            inside = block.get(name)
            block[name] = inside if isinstance(inside, dict) else {}
            block = block[name]
        block[names[-1]] = value
    return checked(content, path)
