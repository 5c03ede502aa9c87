"""How every command ends: quietly where nobody reads on, and in any terminal's characters."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["as_command"]


@contextmanager
def as_command() -> Iterator[None]:
    """Let a command run in a project's folder, and end it as a shell expects.

    Outside a project it exits with 2, after Ctrl-C with 130, and with 141 if whoever reads its output has
    gone (`| head`). What the terminal cannot show is escaped.

    Yields:
        Nothing.

    Raises:
        SystemExit: with the status, after one line to standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not Path("dvc.yaml").is_file() and not {"-h", "--help"} & set(sys.argv):
        print("error: dvc.yaml: no such file; run this in the project's folder", file=sys.stderr)
        raise SystemExit(2)
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # at the interpreter's end it would be too late to say anything
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one ends what is left to end
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except OSError as error:
        unread = isinstance(error, BrokenPipeError) and _is_unread(sys.stdout.fileno())
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        if unread:
            raise SystemExit(128 + signal.SIGPIPE) from None
        print(f"error: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_unread(number: int) -> bool:
    """Return whether an open file is a pipe at whose other end there is nobody."""
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
