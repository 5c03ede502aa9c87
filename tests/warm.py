"""`python -m` with torch, DVC and the like imported already: in a fork of one server.

A stage of a tiny configuration takes a tenth of a second, and the start of its Python seconds. So a test's
workspace has another `python` before the real one. It sends its arguments, folder, environment and open
files to a server, which runs the module in a fork that imports the project from that folder as ever. Tests
that look for a stage's process, to kill it or to see it die, take the real one (`Workspace.warm`).
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["warm_python"]

# None of the project's own: each workspace has its own code.
_MODULES = """
    PIL.Image cleanfid.fid dvc.commands.repro dvc.repo.experiments dvc.repo.reproduce dvc.repo.status
    filelock jinja2 jsonschema matplotlib.backends.backend_svg matplotlib.figure networkx numpy pandas
    psutil pyarrow pydantic ruamel.yaml safetensors.torch scipy.linalg scipy.optimize scipy.stats
    sklearn.datasets sklearn.model_selection sklearn.neighbors torch torch._dynamo torch.distributed
    torch.multiprocessing.spawn tqdm.auto
"""

_CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
if not (sys.argv[1:2] == ["-m"] and sys.argv[2].split(".")[0] in ("tasks", "dvc")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    job = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(job).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(job)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: server.sendall(bytes([number])))
    said = server.recv(8)
status = int.from_bytes(said, "big", signed=True) if said else -signal.SIGKILL
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def warm_python() -> Path:
    """Return a `python` for this process's tests, whose server is started when it is first needed."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, client = str(folder / "socket"), folder / "python"
    client.write_text(_CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    client.chmod(0o755)
    leash = str(Path(__file__).parents[1] / "tasks/files/leash.py")
    server = subprocess.Popen(
        [sys.executable, leash, str(os.getpid()), sys.executable, __file__, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return client


def _serve(address: str) -> None:
    for name in _MODULES.split():
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries who has kept a job
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            if not os.fork():
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _keep(client)
                os._exit(0)
            client.close()


def _keep(client: socket.socket) -> None:
    """Have a job run, pass signals on to it and tell its status; all of it ends with it or its client."""
    head, files, _, _ = socket.recv_fds(client, 8, 3)
    length, job = int.from_bytes(head, "big"), b""
    while len(job) < length:
        job += client.recv(length - len(job))
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        client.close()
        os._exit(_run(files, *json.loads(job)))
    for number in files:
        os.close(number)
    ended, asks = os.pidfd_open(child), [client]
    while ended not in (ready := select.select([ended, *asks], [], [])[0]):
        asked = ready[0].recv(1)
        os.kill(child, asked[0] if asked else signal.SIGKILL)
        asks = asks if asked else []
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(OSError):
        client.sendall(status.to_bytes(8, "big", signed=True))


def _run(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Do what `python -m` does, and return its exit status."""
    for place, number in enumerate(files):
        os.dup2(number, place)
        os.close(number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    paths = list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:0], sys.argv[:] = [folder, *paths], ["-m", *arguments[1:]]
    status = 0
    try:
        for place in paths:
            if (custom := Path(place, "sitecustomize.py")).exists():
                runpy.run_path(str(custom))
        runpy._run_module_as_main(arguments[0])  # type: ignore[attr-defined]
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status & 0xFF


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder
    _serve(sys.argv[1])
