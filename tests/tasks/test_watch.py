"""What is written while a training runs does not disturb it, and does not repeat itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from scoremodel.data.scale import quantise
from scoremodel.denoiser import Denoiser
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.vp import VP
from scoremodel.samplers.multistep import DPMSolver
from scoremodel.samplers.sampling import sample
from tasks.files.watch import Watch
from tasks.params.errors import ParamsError
from tasks.report.pictures.grid import picture
from tests.workspace import Workspace


def point(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1 / step, "images_per_second": 100.0}


def test_points_after_the_step_that_a_run_goes_on_from_are_forgotten(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 0, tensorboard=False)
    watch.begin(0)
    for step in (50, 100, 150):
        watch.point(point(step))
    assert pd.read_csv(watch.curves)["step"].tolist() == [50, 100, 150]
    again = Watch(tmp_path, 0, tensorboard=False)
    again.begin(120)  # the checkpoint is from before the last point
    for step in (150, 200):
        again.point(point(step))
    curves = pd.read_csv(watch.curves)
    assert curves["step"].tolist() == [50, 100, 150, 200]
    assert curves["loss"].tolist() == pytest.approx([1 / 50, 1 / 100, 1 / 150, 1 / 200])


def test_what_a_full_disk_left_of_the_curves_is_in_nobody_s_way(tmp_path: Path) -> None:
    for content in ("", "step,loss,images_per_second\n50,0.02,100\n10"):
        watch = Watch(tmp_path, 0, tensorboard=False)
        watch.curves.write_text(content)
        watch.begin(50)
        watch.point(point(100))
        steps = pd.read_csv(watch.curves)["step"].tolist()
        assert steps == ([50, 100] if content else [100])


def test_a_watch_that_fails_says_so_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chain of so few levels that the grid's sampler cannot have its steps."""
    denoiser = Denoiser({"kind": "mlp"}, NCSN(0.02, 10.0, 5), (2,), [0.0, 0.0], 1.0).eval()
    watch = Watch(tmp_path, 1e-9, tensorboard=False)
    watch.begin(0)
    watch.step(1, denoiser)
    watch.step(2, denoiser)
    watch.point(point(50))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the training goes on unwatched: ncsn has 5 levels")
    assert list(tmp_path.iterdir()) == []


def test_the_grid_shows_the_average_s_samples_and_leaves_the_run_s_randomness(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = {"kind": "unet", "width": 8, "multipliers": [1, 2]}
    denoiser = Denoiser(network, VP(), (1, 8, 8), [0.0], 0.6, 17).eval()
    before = torch.get_rng_state()
    assert not Watch(tmp_path, 0, tensorboard=False).asks()
    assert not Watch(tmp_path, 1e9, tensorboard=False).asks()
    watch = Watch(tmp_path, 1e-9, tensorboard=False)
    assert watch.asks()
    watch.step(7, denoiser)
    assert torch.equal(torch.get_rng_state(), before)
    (path,) = tmp_path.iterdir()
    assert path.name == "samples-0000000007.png"
    drawn = quantise(sample(denoiser, DPMSolver(12), 100, 0, batch_size=100).x, 17)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture(drawn.numpy(), 17)))


def test_tensorboard_is_asked_for_in_one_line_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParamsError, match=r"watch\.tensorboard: true is not allowed without"):
        Watch(tmp_path, 0, tensorboard=True)


def test_dvc_plots_the_curves_of_a_training_that_runs(copied: Workspace) -> None:
    curves = copied.root / ".scoremodel/state/digits-vp-0-0123/curves.csv"
    watch = Watch(curves.parent, 0, tensorboard=False)
    curves.parent.mkdir(parents=True)
    for step, loss in ((50, 0.5), (100, 0.25)):
        watch.point({"step": step, "loss": loss})
    plot = json.loads(
        copied.dvc("plots", "show", str(curves.relative_to(copied.root)), "-x", "step", "-y", "loss",
                   "--show-vega")
    )  # fmt: skip
    shown = [(point["step"], point["loss"]) for point in plot["data"]["values"]]
    assert shown == [("50", "0.5"), ("100", "0.25")]
