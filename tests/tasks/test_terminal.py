"""Commands end as a shell expects: outside a project, in a pipe that closes, in ASCII, after Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspace import ROOT

MAINS = (
    "tasks.check", "tasks.results", "tasks.report", "tasks.train", "tasks.report.pictures",
    "flows.pipeline", "flows.experiments", "flows.clean",
)  # fmt: skip
BEFORE = "import os, signal, sys; from tasks.files.stage import run\n"


def ran(code: str, folder: Path = ROOT, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command whose work is some code."""
    indented = "".join(f"    {line}\n" for line in code.splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", f"{BEFORE}def main(_):\n{indented}run(main)"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_every_command_goes_through_the_one_that_ends_it() -> None:
    """What a module does as __main__ is `run`, `run_stage`, the flows' `command`, or within `as_command`."""
    for name in MAINS:
        path = ROOT / f"{name.replace('.', '/')}.py"
        path = path if path.is_file() else path.with_suffix("") / "__main__.py"
        _, _, last = path.read_text(encoding="utf-8").partition('if __name__ == "__main__":')
        assert any(word in last for word in ("run(", "run_stage(", "command(")), name


def test_outside_a_project_a_command_says_so(tmp_path: Path) -> None:
    command = ran("print('at work')", tmp_path)
    out, err = command.communicate()
    assert (command.returncode, out) == (2, b"")
    assert err == b"error: dvc.yaml: no such file; run this in the project's folder\n"


@pytest.mark.parametrize(
    "code",
    [
        "print('x' * 10**6)",
        "print('x')",
        "print('x' * 10**6, flush=True)",
        "print('x'); raise SystemExit(0)",
    ],
)
def test_whoever_reads_no_further_is_not_told_so(code: str) -> None:
    command = ran(f"sys.stdin.read()\n{code}")
    assert command.stdout is not None
    command.stdout.close()
    assert command.wait() == 128 + signal.SIGPIPE
    assert command.stderr is not None
    assert command.stderr.read() == b""


def test_a_full_disk_is_said_in_one_line() -> None:
    command = ran("sys.stdout = open('/dev/full', 'w')\nprint('x')")
    _, err = command.communicate()
    assert (command.returncode, err) == (2, b"error: No space left on device\n")


def test_a_terminal_that_knows_ascii_only_gets_the_rest_escaped() -> None:
    command = ran("print('σ')\nraise ValueError('µ')", PYTHONIOENCODING="ascii")
    assert command.communicate() == (b"\\u03c3\n", b"error: \\xb5\n")
    assert command.returncode == 2


def test_ctrl_c_is_one_line() -> None:
    command = ran("os.kill(os.getpid(), signal.SIGINT)")
    assert command.communicate() == (b"", b"error: interrupted\n")
    assert command.returncode == 128 + signal.SIGINT
