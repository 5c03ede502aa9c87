"""Unfinished work on disk: what was killed goes on where it was, and ends as if nothing had happened.

A training keeps `Checkpoints`, a computation in independent parts keeps `Chunks`. Each is a
safetensors file with tensors, a description, and a hash of both (`scoremodel.io.weights`). It appears
whole or not at all; one that is damaged all the same is named and passed over. Randomness is a
function of (seed, step) or (seed, sample number), so there is no generator's state to keep.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from scoremodel.io.files import DamagedError
from scoremodel.io.weights import read_weights, write_weights

__all__ = ["Checkpoints", "Chunks", "Stopped"]

_KEPT = 2
_WAIT = 0.5  # seconds between two looks at what another process is at work on
_BEGUN = "begun"  # a file in the folder of chunks that a process has begun to collect
_PATIENCE = 300.0  # seconds that who helps waits for that process to begin
_SHARE = 0.02  # of a training's time may go into checkpoints that are due by time


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Stopped(InterruptedError):
    """A run was asked to stop, and has saved its state."""


class _State:
    """A folder of hashed safetensors files, in which one process at a time may be at work."""

    kind: ClassVar[str]

    def __init__(self, folder: str | os.PathLike[str], warn: Callable[[str], None]) -> None:
        from filelock import FileLock

        self.folder = Path(folder)
        self.warn = warn
        # Beside the folder, not in it: a lock that is deleted while it is held locks nobody out.
        self.lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"), timeout=0)

    def __enter__(self) -> Self:
        from filelock import Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"{self.folder}: another process is at work on this run; wait for it, or stop it"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lock.release()

    def exist(self) -> bool:
        """Return whether there is any file, whole or not."""
        return bool(self._files())

    def remove(self) -> None:
        """Delete all of it, once what the run was for has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.safetensors"))  # none that is being written

    def _write(self, name: str, tensors: dict[str, Tensor], content: Any) -> None:
        write_weights(self.folder / f"{name}.safetensors", tensors, {self.kind: content})

    def _read(self, path: Path, otherwise: str) -> tuple[dict[str, Tensor], Any] | None:
        """Return what `_write` wrote, None (and a warning) if it is damaged."""
        try:
            tensors, said = read_weights(path)
            if not isinstance(said, dict) or self.kind not in said:
                raise DamagedError(path, f"no {self.kind}")
        except (DamagedError, OSError) as error:
            what = error.what if isinstance(error, DamagedError) else error.strerror
            self.warn(f"{path}: damaged ({what}), {otherwise}")
            return None
        return tensors, said[self.kind]


class Checkpoints(_State):
    """The checkpoints of one run, in a folder that one process at a time may use.

    They are written beside the training, and those of `every_seconds` come so seldom that they take 2 %
    of its time at most.

    Args:
        folder: the run's own folder, made when it is first needed.
        every_steps: a checkpoint is due after that many steps, 0 for never.
        every_seconds: a checkpoint is due after that many seconds, or 50 times what the last one took,
            0 for never.
        stop: asked at every step; once it is true the run saves its state and raises `Stopped`.
        warn: is told about damaged checkpoints.

    Raises:
        BlockingIOError: on entering, if another process is at work in the folder.
    """

    kind = "checkpoint"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_steps: int = 0,
        every_seconds: float = 60.0,
        stop: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = _say,
    ) -> None:
        super().__init__(folder, warn)
        self.every_steps, self.every_seconds = every_steps, every_seconds
        self.stop = stop
        self.saved = time.monotonic()
        self.took = 0.0
        self.writer = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self.saved = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._settle()
        except OSError:
            if error is None:
                raise
        finally:
            self.writer.shutdown()
            super().__exit__(kind, error, trace)

    def due(self, step: int) -> bool:
        """Return whether the state after `step` steps should be saved now."""
        if self.every_steps and step % self.every_steps == 0:
            return True
        if not self.every_seconds or (self.writing is not None and not self.writing.done()):
            return False
        apart = max(self.every_seconds, self.took / _SHARE)
        return time.monotonic() - self.saved >= apart

    def save(
        self, step: int, tensors: dict[str, Tensor], info: dict[str, Any], wait: bool = True
    ) -> None:
        """Write the state after `step` steps, and drop all but the newest two.

        Args:
            step: number of steps done.
            tensors: the state.
            info: the rest of it, as JSON.
            wait: whether to return once it is written, or as soon as the tensors may change.

        Raises:
            OSError: if the file, or the one before that was not waited for, cannot be written, naming
                it; older checkpoints stay.
        """
        self._settle()
        began = time.monotonic()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        content = {"step": step, "info": copy.deepcopy(info)}
        self.writing = self.writer.submit(self._keep, f"step-{step:010}", copies, content, began)
        if wait:
            self._settle()

    def remove(self) -> None:
        """Delete all of it, once what the run was for has been written."""
        with suppress(OSError):
            self._settle()
        super().remove()

    def _keep(self, name: str, tensors: dict[str, Tensor], content: Any, began: float) -> None:
        self._write(name, tensors, content)
        for path in self._files()[:-_KEPT]:
            path.unlink()
        self.saved = time.monotonic()
        self.took = self.saved - began

    def _settle(self) -> None:
        """Wait for the last checkpoint, and raise what went wrong with it."""
        if self.writing is not None:
            done, self.writing = self.writing, None
            done.result()

    def latest(
        self, device: torch.device | str = "cpu"
    ) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest checkpoint that is whole.

        Args:
            device: where the tensors go.

        Returns:
            The number of steps done, the state's tensors and the rest of it; None if there is no
            checkpoint.
        """
        for path in reversed(self._files()):
            found = self._read(path, "going back to the checkpoint before it")
            if found is not None:
                tensors, state = found
                moved = {name: value.to(device) for name, value in tensors.items()}
                return state["step"], moved, state["info"]
        return None


class Chunks(_State):
    """The finished parts of a long computation whose parts do not depend on each other.

    One process collects them, which enters the folder as its own. Others may help it, from when it has
    begun until it has ended: each part has a lock, which ends with the process that computes it, and
    whoever finds a part missing takes it.

    Args:
        folder: the computation's own folder, made when it is first needed.
        stop: asked after every part; once it is true `Stopped` is raised.
        warn: is told about damaged parts.

    Raises:
        BlockingIOError: on entering, if another process collects in the folder.
    """

    kind = "chunk"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stop: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = _say,
    ) -> None:
        super().__init__(folder, warn)
        self.stop = stop
        self.begun = self.folder / _BEGUN
        self.met = False
        self.computed = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.begun.touch()
        return self

    def get(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return a part's tensors, on the CPU: as they were finished before, or else computed now.

        Args:
            name: the part's name, which may be part of a file's.
            compute: makes them.

        Returns:
            The tensors by name.

        Raises:
            Stopped: after a part that was computed, or while another process is at work on it, if
                `stop` says so; what is finished is saved.
            OSError: if the file cannot be written, naming it; other parts stay.
        """
        while True:
            path, seen = self._path(name), self._written(name)
            found = self._read(path, "computing it again") if seen else None
            if found is not None:
                return found[0]
            with self._taken(name, _WAIT) as mine:
                if mine and self._written(name) == seen:
                    return self._compute(name, compute)
            self._stop_after(name)

    def fill(self, parts: Mapping[str, Callable[[], dict[str, Tensor]]]) -> None:
        """Compute the parts that are not there and that no other process is at work on.

        Args:
            parts: what computes each of them, by name.

        Raises:
            Stopped: as `get`.
            OSError: as `get`; or if no process has begun to collect them after five minutes.
        """
        self._meet()
        for name, compute in parts.items():
            if self._path(name).exists():
                continue
            try:
                with self._taken(name, 0) as mine:
                    if mine and self.begun.exists() and not self._path(name).exists():
                        self._compute(name, compute)
            except FileNotFoundError:  # the folder went before the lock came
                if self.begun.exists():
                    raise
            if not self.begun.exists():  # who collects has all, and has ended
                return

    def _meet(self) -> None:
        """Wait for the process that collects, once."""
        by = time.monotonic() + _PATIENCE
        while not self.met and not self.begun.exists():
            self._stop_after("nothing")
            if time.monotonic() > by:
                raise TimeoutError(
                    f"{self.folder}: no process has begun to collect here: its work is done, or is other "
                    "work (of another kind of machine, say)"
                )
            time.sleep(_WAIT)
        self.met = True

    def count(self, since: float = 0.0) -> int:
        """Return how many parts are there, whole or not, that were finished since a time of the clock."""
        return sum(path.stat().st_mtime >= since for path in self._files())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _written(self, name: str) -> int | None:
        """Return when a part's file was written, None if there is none."""
        try:
            return self._path(name).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _compute(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        made = {key: value.cpu() for key, value in compute().items()}
        self._write(name, made, None)
        self.computed += 1
        self._stop_after(name)
        return made

    def _stop_after(self, name: str) -> None:
        if self.stop():
            raise Stopped(
                f"stopped after {name}, what is finished is in {self.folder}; the same command goes "
                "on from there"
            )

    @contextmanager
    def _taken(self, name: str, timeout: float) -> Iterator[bool]:
        """Hold a part's lock, if it is free within so many seconds."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{name}.lock", timeout=timeout)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            # While it is held; who waits for it, or makes it anew meanwhile, finds the part, or takes it.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
