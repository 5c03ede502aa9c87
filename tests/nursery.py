"""Stages run in forks of one process, which imports torch and the like once for all of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.workspace import Workspace

__all__ = ["Nursery", "nursery"]

# Two lines are printed for each job: the fork's number, and its exit status. Each fork is a process like
# the one of `python -m tasks.STAGE`: the module runs as __main__, with its own signals and output.
_CODE = """
import json, os, runpy, subprocess, sys, traceback
import tasks.features, tasks.sample, tasks.train, torch._dynamo

def run(stage, arguments, before, folder, log):
    os.chdir(folder)
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    sys.argv[:] = [stage, *arguments]
    try:
        exec(before, {})
        runpy.run_module(f"tasks.{stage}", run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as error:
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 99

for line in sys.stdin:
    job = json.loads(line)
    if "shell" in job:
        held = subprocess.Popen(job["shell"], shell=True)  # one that is let go reaps its child itself
        child = held.pid
    elif not (child := os.fork()):
        status = run(**job)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs stages one after the other, each in a process of its own.

    Args:
        workspace: whose code is run, there or in copies of it.
        prefix: a command to run it under, such as one that makes a namespace.
    """

    def __init__(self, workspace: Workspace, prefix: Sequence[str] = ()) -> None:
        self.workspace = workspace
        self.log = workspace.root.parent / "nursery.log"
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "ignore::RuntimeWarning", "-c", _CODE],
            cwd=workspace.root,
            env=workspace.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _give(self, job: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        # What it prints itself goes to this test's output.
        assert line, f"the nursery has ended with status {self.process.wait()}"
        return int(line)

    def start(
        self, stage: str, *arguments: str, before: str = "", where: Workspace | None = None
    ) -> int:
        """Start a stage, after running some code in its process; return the process's number."""
        folder = str((where or self.workspace).root)
        job = {"stage": stage, "arguments": arguments, "before": before}
        return self._give({**job, "folder": folder, "log": str(self.log)})

    def wait(self) -> int:
        """Wait for what was started, and return its exit status."""
        return self._answer()

    def end(self, status: int = 0) -> str:
        """Wait for what was started, and return what it said; fail unless it exits with `status`."""
        ended = self.wait()
        said = self.log.read_text()
        assert ended == status, (ended, said)
        return said

    def run(
        self,
        stage: str,
        *arguments: str,
        before: str = "",
        where: Workspace | None = None,
        status: int = 0,
    ) -> str:
        """Run a stage and return what it says; fail unless it exits with `status`."""
        self.start(stage, *arguments, before=before, where=where)
        return self.end(status)

    def shell(self, command: str) -> None:
        """Run a shell's command where the stages run; fail unless it succeeds."""
        self._give({"shell": command})
        assert self._answer() == 0, command


@contextmanager
def nursery(workspace: Workspace, prefix: Sequence[str] = ()) -> Iterator[Nursery]:
    """Yield a nursery for a workspace, whose code is not to be edited meanwhile."""
    made = Nursery(workspace, prefix)
    try:
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        made.process.communicate()
