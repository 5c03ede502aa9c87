"""A Prefect server, work pools, workers and a DVC remote on this machine: to try it, and for tests.

What several machines do is done by several processes that share nothing but the server and the
remote: every worker has a folder for its clones and its caches. All of it listens on loopback, lies
in one folder, and ends with the process that started it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

__all__ = ["Cluster"]

_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_START = 120.0
_LEASH = str(Path(__file__).parents[1] / "tasks/files/leash.py")


class Cluster:
    """A server with its database, and workers, in a folder of their own.

    Used as a context: what was started is stopped at its end.

    Args:
        folder: where database, logs and workers' clones go.
        project: the folder of `prefect.yaml`.
        variables: environment variables of every process, such as the remote's credentials.
    """

    def __init__(
        self, folder: Path, project: Path, variables: dict[str, str] | None = None
    ) -> None:
        self.folder, self.project = folder, project
        self.variables = variables or {}
        self.port = _free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process that talks to this server."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        return env | {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
            "DO_NOT_TRACK": "1",
            "DVC_NO_ANALYTICS": "true",
            **self.variables,
            **more,
        }

    def __enter__(self) -> Self:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self.start_server()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self, log: str, *command: str, cwd: Path | None = None, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a program of this Python's environment, its output in a file of `logs`."""
        with (self.folder / "logs" / f"{log}.log").open("ab") as out:
            process = subprocess.Popen(
                # Even if this process is killed.
                [sys.executable, _LEASH, str(os.getpid()), sys.executable, "-m", *command],
                cwd=cwd or self.project,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a program of this Python's environment.

        Args:
            *command: a module and its arguments.
            cwd: the folder to run it in; the project's by default.

        Returns:
            What it prints.

        Raises:
            RuntimeError: with its output, if it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=cwd or self.project,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    def start_server(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: if it does not.
        """
        self.server = self.start(
            "server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)
        )
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self.server.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start; see {self.folder / 'logs/server.log'}")

    def deploy(self) -> str:
        """Register all of `prefect.yaml`'s deployments, after making the pools that they name."""
        for pool in ("local", "cpu", "gpu"):
            self.run("prefect", "work-pool", "create", pool, "--type", "process", "--overwrite")
        return self.run("prefect", "--no-prompt", "deploy", "--all")

    def start_worker(
        self, pool: str, name: str, place: Path | None = None, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker that takes one run at a time, with clones and caches of its own.

        Args:
            pool: the work pool.
            name: the worker's name.
            place: where its clones and caches are; a folder of its name by default.
            **more: environment variables.

        Returns:
            Its process.
        """
        worker = ("worker", "start", "--pool", pool, "--name", name, "--limit", "1")
        return self.start(
            name,
            "prefect",
            *worker,
            "--type",
            "process",
            "--install-policy",
            "never",
            cwd=self.folder,
            SCOREMODEL_WORKSPACES=str(place or self.folder / "machines" / name),
            **more,
        )

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a process with all that it started."""
        try:
            family = [psutil.Process(process.pid)]
            family += family[0].children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(family, timeout=10)[1]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()

    def stop(self) -> None:
        """Stop all that was started, the server last."""
        for process in reversed(self.processes):
            self.end(process)
        self.processes.clear()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
