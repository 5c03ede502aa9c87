"""What a person sees of a training while it runs: its curves as they grow, and samples.

Both lie in the run's state folder and go with it: `curves.csv` (for pandas, or `dvc plots show`) and
`samples-STEP.png`, drawn by DPM-Solver++ from the averaged weights. TensorBoard's files, if they are
asked for, stay.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scoremodel.data.scale import quantise
from scoremodel.denoiser import Denoiser
from scoremodel.files import atomic_path
from scoremodel.samplers import DPMSolver, sample
from tasks.params import ParamsError
from tasks.params import Watch as Settings
from tasks.pictures import save_picture

__all__ = ["TENSORBOARD", "Watch"]

TENSORBOARD = Path(".scoremodel/tensorboard")

_SAMPLER = DPMSolver(12)
_IMAGES, _POINTS = 100, 2000


class Watch:
    """Writes down what a training shows, see `scoremodel.training.Observer`.

    Args:
        folder: the run's state folder.
        name: the run's name, for TensorBoard.
        settings: how often to draw samples, and whether to write for TensorBoard.

    Raises:
        ParamsError: if TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, name: str, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.curves = folder / "curves.csv"
        self.drawn = time.monotonic()
        self.writer = None
        if settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ParamsError(
                    "params.yaml: watch.tensorboard: true is not allowed without the package "
                    "tensorboard (pip install tensorboard), allowed: false"
                ) from error
            self.writer = SummaryWriter(TENSORBOARD / name)

    def begin(self, step: int) -> None:
        """Forget the points after `step`, which will come again."""
        if self.curves.exists():
            rows = pd.read_csv(self.curves)
            with atomic_path(self.curves) as temporary:
                rows[rows["step"] <= step].to_csv(temporary, index=False)

    def point(self, point: Mapping[str, float]) -> None:
        """Append a point to the curves."""
        row = pd.DataFrame([point])
        row.to_csv(self.curves, mode="a", header=not self.curves.exists(), index=False)
        if self.writer is not None:
            for key, value in point.items():
                if key != "step":
                    self.writer.add_scalar(key, value, int(point["step"]))

    def step(self, step: int, averaged: Denoiser) -> None:
        """Draw samples, if it is time."""
        every = self.settings.grid_every_seconds
        if not every or time.monotonic() - self.drawn < every:
            return
        count = _POINTS if averaged.levels is None else _IMAGES
        drawn = sample(averaged, _SAMPLER, count, 0, batch_size=count).x
        levels = quantise(drawn, averaged.levels).cpu().numpy()
        save_picture(levels, averaged.levels, self.folder / f"samples-{step:010}.png")
        self.drawn = time.monotonic()
