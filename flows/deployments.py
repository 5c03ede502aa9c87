"""Deployments: what they work on, said when they are made, and which repositories their runs may use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import deployment
from ruamel.yaml import YAML

from flows.progress import patiently
from tasks.files.addresses import cleaned, require_remote, require_repository
from tasks.files.git import git

__all__ = ["here", "require_allowed"]

_HERE = "{{ here.repository }}"
_UNSHOWN = ("active", "parameters")  # of a schedule


@cache  # `prefect deploy` runs it for each deployment
def here(file: str = "prefect.yaml") -> dict[str, str]:
    """Return what deployments work on by default, and say it; a build step of `prefect.yaml`.

    That is the folder that they are deployed from and the branch checked out in it. With the variable
    SCOREMODEL_REPOSITORY it is the address there instead, or with "origin" there that of git's remote.

    Args:
        file: the file that lists the deployments.

    Returns:
        "repository" and "branch".

    Raises:
        SystemExit: with one line, before anything is sent to the server, for an address that is not
            allowed, without repeating it, or if no branch is checked out.
    """
    try:
        return _here(Path.cwd(), file)
    except (ValueError, OSError) as error:  # Prefect would show a traceback
        raise SystemExit(f"error: {error}") from None


def _here(folder: Path, file: str) -> dict[str, str]:
    given = os.environ.get("SCOREMODEL_REPOSITORY")
    repository = given or str(folder)
    if given == "origin":
        repository = git(folder, "remote", "get-url", "origin").strip()
    _require("SCOREMODEL_REPOSITORY", require_repository, repository)
    branch = git(folder, "branch", "--show-current").strip()
    if not branch:
        raise ValueError(f"{folder}: no branch is checked out, on which deployments could work")
    listed = YAML(typ="safe", pure=True).load(folder / file)["deployments"]
    for one in listed:
        for given_by in (one, *one.get("schedules", [])):
            for key, check in (("repository", require_repository), ("remote", require_remote)):
                value = given_by.get("parameters", {}).get(key)
                if value not in (None, _HERE):
                    _require(f"{file}: {one['name']}: {key}", check, value)
    whose = "SCOREMODEL_REPOSITORY" if given else "this folder"
    print(f"   works on   {repository} ({whose}), branch {branch}")
    print(f"   pushes     {_pushed(listed)}")
    print(f"   schedules  {_schedules(listed)}", flush=True)
    return {"repository": repository, "branch": branch}


def _require(where: str, check: Callable[[str], str], address: str) -> None:
    try:
        check(str(address))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _pushed(listed: list[dict[str, Any]]) -> str:
    given = [(one["name"], one.get("parameters", {})) for one in listed]
    pushed = [name for name, values in given if values.get("push")]
    pushed += [f"{name} (to {to})" for name, values in given if (to := values.get("commit_to"))]
    return ", ".join(pushed) or "nothing; stages that workers run go to the DVC remote"


def _schedules(listed: list[dict[str, Any]]) -> str:
    found = []
    for one in listed:
        for when in one.get("schedules", []):
            words = " ".join(str(value) for key, value in when.items() if key not in _UNSHOWN)
            found.append(f"{one['name']} {words if when.get('active', True) else 'inactive'}")
    return ", ".join(found) or "none"


def require_allowed(repository: str) -> None:
    """Refuse a repository that whoever runs this worker has not allowed.

    Allowed are the addresses in the variable SCOREMODEL_REPOSITORIES, and what begins with one of
    them that ends in "/"; without it the one that the run's deployment itself names. A run without a
    deployment is its own person's, who may name any.

    Args:
        repository: its address.

    Raises:
        ValueError: one line with what is allowed.
    """
    if deployment.id is None:
        return
    listed = os.environ.get("SCOREMODEL_REPOSITORIES", "")
    allowed = [one for one in re.split(r"[\s,]+", listed) if one]
    if not allowed:
        with get_client(sync_client=True) as client:
            read = partial(client.read_deployment, UUID(deployment.id))
            own = patiently(read).parameters.get("repository")
        allowed = [str(own)] if own else []
    if not any(
        repository == one or (one[-1] == "/" and repository.startswith(one)) for one in allowed
    ):
        names = cleaned(", ".join(allowed)) or "none"
        raise ValueError(
            f"repository: {repository!r} is not allowed on this worker, allowed: {names}; others by "
            "SCOREMODEL_REPOSITORIES in the worker's environment, or by deploying from there"
        )
