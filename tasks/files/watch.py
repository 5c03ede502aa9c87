"""What a person sees of a training while it runs: its curves as they grow, and samples.

Both lie in the run's state folder and go with it: `curves.csv` (for pandas, or `dvc plots show`) and
`samples-STEP.png`, drawn by DPM-Solver++ from the averaged weights. TensorBoard's files, if they are
asked for, stay. No result depends on any of it: what goes wrong here is said once, and the training
goes on unwatched. What it shows with is imported by name, so that it is no part of the training's
code (`tasks.files.code`), and an edit of a sampler trains nothing again.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scoremodel.denoiser import Denoiser
from scoremodel.io.files import atomic_path
from tasks.params.errors import ParamsError

__all__ = ["Watch"]

_STEPS = 12
_IMAGES, _POINTS = 100, 2000
_SHARE = 0.02  # of the time may go into samples


class Watch:
    """Writes down what a training shows, see `scoremodel.training.loop.Observer`.

    Args:
        folder: the run's state folder.
        grid_every_seconds: how often to draw samples; 0: never.
        tensorboard: whether to write for TensorBoard.

    Raises:
        ParamsError: if TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, grid_every_seconds: float, tensorboard: bool) -> None:
        self.folder = folder
        self.grid_every_seconds, self.tensorboard = grid_every_seconds, tensorboard
        self.curves = folder / "curves.csv"
        self.next_grid = time.monotonic() + grid_every_seconds
        self.works = True
        self.writer: Any = None
        if tensorboard:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError as error:
                raise ParamsError(
                    "params.yaml: watch.tensorboard: true is not allowed without the package "
                    "tensorboard (pip install tensorboard), allowed: false"
                ) from error

    def begin(self, step: int) -> None:
        """Forget the points after `step`, which will come again, and what a full disk cut off."""
        self._attempt(lambda: self._begin(step))

    def point(self, point: Mapping[str, float]) -> None:
        """Append a point to the curves."""
        self._attempt(lambda: self._point(point))

    def asks(self) -> bool:
        """Return whether it is time for samples."""
        wanted = self.works and self.grid_every_seconds > 0
        return wanted and time.monotonic() >= self.next_grid

    def step(self, step: int, averaged: Denoiser) -> None:
        """Draw samples."""
        self._attempt(lambda: self._grid(step, averaged))

    def _attempt(self, act: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            act()
        except (OSError, ValueError, RuntimeError) as error:
            self.works = False
            reason = " ".join(str(error).split())
            print(f"the training goes on unwatched: {reason}", file=sys.stderr, flush=True)

    def _begin(self, step: int) -> None:
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            root = Path(os.environ.get("DVC_ROOT", "."), ".scoremodel/tensorboard")
            self.writer = SummaryWriter(root / self.folder.name, purge_step=step + 1)
        try:
            rows = pd.read_csv(self.curves, on_bad_lines="skip").dropna(subset=["step", "loss"])
            rows = rows.astype({"step": int})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self.curves.unlink(missing_ok=True)
            return
        with atomic_path(self.curves) as temporary:
            rows[rows["step"] <= step].to_csv(temporary, index=False)

    def _point(self, point: Mapping[str, float]) -> None:
        row = pd.DataFrame([point])
        row.to_csv(self.curves, mode="a", header=not self.curves.exists(), index=False)
        if self.writer is not None:
            for key, value in point.items():
                if key != "step":
                    self.writer.add_scalar(key, value, int(point["step"]))

    def _grid(self, step: int, averaged: Denoiser) -> None:
        scale = importlib.import_module("scoremodel.data.scale")
        multistep = importlib.import_module("scoremodel.samplers.multistep")
        draw = importlib.import_module("scoremodel.samplers.sampling")
        pictures = importlib.import_module("tasks.report.pictures.grid")

        began = time.monotonic()
        count = _POINTS if averaged.levels is None else _IMAGES
        drawn = draw.sample(averaged, multistep.DPMSolver(_STEPS), count, 0, batch_size=count).x
        data = scale.quantise(drawn, averaged.levels).cpu().numpy()
        with atomic_path(self.folder / f"samples-{step:010}.png") as temporary:
            pictures.picture(data, averaged.levels).save(temporary, format="PNG")
        now = time.monotonic()
        self.next_grid = now + max(self.grid_every_seconds, (now - began) / _SHARE)
