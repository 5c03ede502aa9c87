"""What a form or a command line may say to a flow, checked before anything else happens.

No parameter reaches a shell: git and DVC get lists of arguments. What could still be taken for an
option, a helper program's name or a path elsewhere is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from scoremodel.bounds import shown
from tasks.files.addresses import REMOTE, REPOSITORY, require_remote, require_repository

__all__ = [
    "Asked",
    "Branch",
    "Budget",
    "Commit",
    "Configurations",
    "Helpers",
    "Name",
    "Patience",
    "RemoteUrl",
    "Repository",
    "Seed",
    "Target",
    "seconds",
]


def _kind(pattern: str, check: Callable[[str], str]) -> tuple[AfterValidator, WithJsonSchema]:
    # The server checks by the schema, before it stores anything; the flow in words for people.
    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": pattern})


def _word(pattern: str, what: str) -> tuple[AfterValidator, WithJsonSchema]:
    whole = rf"^(?!.*\.\.)(?:{pattern})$"

    def check(value: str) -> str:
        if not re.fullmatch(whole, value):
            raise ValueError(f"{shown(value)} is not allowed, allowed: {what}")
        return value

    return _kind(whole, check)


Target = Annotated[str, *_word(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", "the name of a stage")]
Commit = Annotated[str, *_word(r"[0-9a-f]{40}", "the 40 digits of a git commit")]
Branch = Annotated[
    str, *_word(r"[A-Za-z0-9_][A-Za-z0-9_./-]*(?<![./])", "the name of a git branch")
]
Name = Annotated[str, *_word(r"[A-Za-z0-9_][A-Za-z0-9_-]*", "the name of a block in params.yaml")]
Budget = Annotated[
    str,
    *_word(
        r"[1-9][0-9]*(\.[0-9]+)?[smhd]", "a number with s, m, h or d, such as 90s, 30m, 2h, 30d"
    ),
]
Patience = Annotated[float, Field(ge=0, le=1e9)]
Helpers = Annotated[int, Field(ge=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Repository = Annotated[str, *_kind(REPOSITORY, require_repository)]
RemoteUrl = Annotated[str, *_kind(REMOTE, require_remote)]
Configurations = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What every flow may be asked, beside its own parameters.

    Args:
        executor: "local": all stages in the flow's own workspace, side by side within its cores and GPUs;
            "workers": a stage with a `meta: pool` by a worker of that pool. What several experiments
            share runs once.
        repository: work in a worktree of it that is this run's own; by default in the folder in which the
            flow was started. Workers fetch commits from here too.
        branch: whose newest commit is checked out there.
        remote: address of its DVC remote, the workers' too; by default the one that the commit names in
            .dvc/config.
        push: whether to push what was made at the end, to the DVC remote, and experiments to the
            repository.
        commit_to: branch to which the results are committed at the end, only from a worktree: dvc.lock,
            and the ledger's new rows; nothing is committed by default.
        patience: seconds to wait for a worker before a stage is given up.
        helpers: how many other workers of its pool help a stage that draws samples or computes features,
            by `checkpoints.folder` of params.yaml, a folder that all of them see.
    """

    executor: Literal["local", "workers"] = "local"
    repository: Repository | None = None
    branch: Branch = "main"
    remote: RemoteUrl | None = None
    push: bool = False
    commit_to: Branch | None = None
    patience: Patience = 600.0
    helpers: Helpers = 0


def seconds(budget: str) -> float:
    """Return how many seconds a budget is: "30m" → 1800."""
    return float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[budget[-1]]
