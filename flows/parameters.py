"""What a form or a command line may say to a flow, checked before anything else happens.

No parameter reaches a shell: git and DVC get lists of arguments. What could still be taken for an
option, a helper program's name or a path elsewhere is refused here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

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
    str, _check(r"[1-9]\d*(\.\d+)?[smh]", "a number with s, m or h, such as 90s, 30m, 2h")
]
Repository = Annotated[str, AfterValidator(_check_repository)]
RemoteUrl = Annotated[str, AfterValidator(_check_remote)]
Configurations = list[dict[str, Any]]


def seconds(budget: str) -> float:
    """Return how many seconds a budget is: "30m" → 1800."""
    return float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[budget[-1]]
