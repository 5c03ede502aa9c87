"""`python leash.py PID PROGRAM …`: become PROGRAM, and be stopped when process PID dies.

A flow that is killed cannot stop what it started: DVC, and under it a training, would live on as
orphans beside which the next run starts its own. Linux sends a SIGTERM to a process that asked for
it when its parent is gone; stages ask for the same with respect to DVC (`tasks.stage`), save their
state and exit. Elsewhere the next run waits for the orphans.

A script of its own, which imports nothing: what runs between fork and exec of a process with
threads must not take locks that another thread may hold.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):  # it died before it was asked
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(sys.argv[2], sys.argv[2:])
