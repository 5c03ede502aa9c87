"""Deployments: what they work on, said when they are made, and which repositories their runs may use."""

from __future__ import annotations

import os
import re
from functools import cache, partial
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import deployment

from flows.progress import patiently
from tasks.files.addresses import require_listed
from tasks.files.deployed import deployed

__all__ = ["here", "require_allowed"]


@cache  # `prefect deploy` runs it for each deployment
def here(file: str = "prefect.yaml") -> dict[str, str]:
    """Return what deployments work on by default, and say it; a build step of `prefect.yaml`.

    Args:
        file: the file that lists the deployments.

    Returns:
        "repository" and "branch".

    Raises:
        SystemExit: with one line, before anything is sent to the server, if that is not allowed.
    """
    try:
        found, lines = deployed(Path.cwd(), file)
    except (ValueError, OSError) as error:  # Prefect would show a traceback
        raise SystemExit(f"error: {error}") from None
    print(*(f"   {line}" for line in lines), sep="\n", flush=True)
    return found


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
    require_listed(repository, allowed)
