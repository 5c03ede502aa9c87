"""What deployments work on, from the file that lists them: said, and refused if it holds a secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.files.addresses import require_remote, require_repository
from tasks.files.git import git

__all__ = ["deployed"]

_HERE = "{{ here.repository }}"
_UNSHOWN = ("active", "parameters")  # of a schedule


def deployed(folder: Path, file: str) -> tuple[dict[str, str], list[str]]:
    """Return what deployments work on by default, and what there is to say of them.

    That is the folder that they are deployed from and the branch checked out in it. With the variable
    SCOREMODEL_REPOSITORY it is the address there instead, or with "origin" there that of git's remote.

    Args:
        folder: the folder.
        file: the file in it that lists the deployments.

    Returns:
        "repository" and "branch"; a line about each of what they work on, push, and when.

    Raises:
        ValueError: for an address that is not allowed, without repeating it, or if no branch is
            checked out.
    """
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
    lines = [
        f"works on   {repository} ({whose}), branch {branch}",
        f"pushes     {_pushed(listed)}",
        f"schedules  {_schedules(listed)}",
    ]
    return {"repository": repository, "branch": branch}, lines


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
