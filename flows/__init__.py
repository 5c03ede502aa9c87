"""Prefect flows over DVC's stage graph: DVC says what must run, Prefect when, where and how it goes."""

from __future__ import annotations

import os
from pathlib import Path

# Read by Prefect when it is imported. A server of the flow's own starts with a new database in
# about 10 s, and the default patience of 20 s is too little on a busy machine.
os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect"))
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
