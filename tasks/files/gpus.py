"""GPUs of this machine: which ones a workspace's stages may use, and some of them for one stage alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from tasks.files.dvc import Say
from tasks.files.worktree import workspaces

__all__ = ["gpus", "some_gpus"]


def gpus(root: Path) -> tuple[str, ...]:
    """Return the GPUs that stages here may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        root: the workspace, whose `device:` may rule them out.

    Returns:
        Their names; one empty name if the stages name their GPU themselves (`device: cuda:1`).
    """
    device = str(YAML(typ="safe", pure=True).load(root / "params.yaml").get("device", "auto"))
    if device.startswith("cuda:"):
        return ("",)
    if device not in ("auto", "cuda"):
        return ()
    there = _installed_gpus()
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        named = filter(None, os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        return tuple(there.get(name.strip(), name.strip()) for name in named)
    return tuple(there.values())


@cache  # an answer that fails once must not let everybody on all of them
def _installed_gpus() -> dict[str, str]:
    """Return the name of each GPU by its number: numbers are another GPU's in another container."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"nvidia-smi does not say which GPUs there are: {error}") from None
    pairs = (line.split(",") for line in listed.splitlines() if "," in line)
    return {number.strip(): name.strip() for number, name in pairs}


@contextmanager
def some_gpus(root: Path, count: int, say: Say, stop: threading.Event) -> Iterator[dict[str, str]]:
    """Yield the environment of a stage that has GPUs to itself, whoever else runs stages here.

    It gets all that it claims or waits with none, so that two stages never wait for each other.

    Args:
        root: the workspace.
        count: how many it claims.
        say: is told about a wait.
        stop: ends the wait when it is set.

    Yields:
        CUDA_VISIBLE_DEVICES; nothing where there is no GPU, or the stages name theirs.

    Raises:
        ValueError: if there are fewer.
    """
    names = [name for name in gpus(root) if name]
    if not names or not count:
        yield {}
        return
    if count > len(names):
        raise ValueError(
            f"meta.gpus: {count} is not allowed on this machine, allowed: at most {len(names)}"
        )
    workspaces().mkdir(parents=True, exist_ok=True)
    # A lock of ours: Prefect's slots outlive a `kill -9` (test_a_new_flow_takes_over_from_a_killed_one).
    locks = {name: FileLock(workspaces() / f"gpu-{name}.lock") for name in names}
    waited = False
    while not stop.is_set():
        taken: list[str] = []
        try:
            for name, lock in locks.items():
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    taken.append(name)
                if len(taken) == count:
                    yield {"CUDA_VISIBLE_DEVICES": ",".join(taken)}
                    return
        finally:
            for name in taken:
                locks[name].release()
        if not waited:
            what = "a GPU" if count == 1 else f"{count} GPUs"
            say(f"waits for {what}: another stage is on {', '.join(names)}")
            waited = True
        stop.wait(1.0)
    yield {}
