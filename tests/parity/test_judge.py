"""Samples that other libraries draw of one exact score are judged as ours are, and worse ones as worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML
from sklearn.datasets import load_digits
from torch import Tensor

from scoremodel.data.exchange import write_images
from scoremodel.oracles import GaussianMixture
from scoremodel.processes.base import Process
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.vp import VP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from tests.tasks.test_judge import judged
from tests.workspace import ROOT

pytestmark = pytest.mark.parity

SETS, COUNT, REAL = 20, 250, 2000
FEW = 1000
STD = 0.3


def _means() -> Tensor:
    """Return the digits' ten mean images with shape (10, 64), so near to grey that the components overlap.

    Of far ones a set's distance would be that of its class counts.
    """
    x, labels = load_digits(return_X_y=True)
    found = np.stack([0.25 * (x[labels == one].mean(0) / 8 - 1) for one in range(10)])
    return torch.from_numpy(found).float()


MEANS = _means()
"""Of the mixture of 8×8 images that everybody draws from: ten components of one spread and weight."""


def noise(seed: int) -> Tensor:
    """Return the prior's draw for all sets, with shape (SETS · COUNT, 64)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(SETS * COUNT, 64, generator=draw)


def denoised(x: Tensor, t: float | Tensor, process: Process) -> Tensor:
    """Return E[x_0 | x_t] at one time for all rows; x_t has one variance v around each alpha m_k.

    With one spread for all, |x|² drops out of the components' weights given x_t.
    """
    at = torch.as_tensor(t, dtype=torch.float64)
    alpha, sigma = float(process.alpha(at)), float(process.sigma(at))
    variance = alpha**2 * STD**2 + sigma**2
    logits = (alpha * (x @ MEANS.T) - alpha**2 * MEANS.square().sum(1) / 2) / variance
    mean = logits.softmax(1) @ MEANS
    return mean + alpha * STD**2 / variance * (x - alpha * mean)


def ours() -> Tensor:
    found = sample(
        lambda x, t: denoised(x, t[0], VP()), Heun(50), SETS * COUNT, 0,
        process=VP(), shape=(64,), batch_size=SETS * COUNT,
    )  # fmt: skip
    return found.x


def azula_s(name: str, steps: int, seed: int) -> Tensor:
    """Return the samples of one of azula's samplers, on its own grid of times."""
    pytest.importorskip("azula")
    from azula import denoise
    from azula import noise as schedules
    from azula import sample as samplers

    class Schedule(schedules.Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return VP().alpha(t), VP().sigma(t)

    class Exact(denoise.Denoiser):
        schedule = Schedule()

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            return denoise.DiracPosterior(mean=denoised(x_t, t, VP()))

    sampler = getattr(samplers, name)(Exact(), steps=steps, stop=VP().t_min, silent=True)
    found: Tensor = sampler(noise(seed))
    return found


def diffusers_s(name: str, steps: int, seed: int) -> Tensor:
    """Return the samples of one of diffusers' schedulers, on DDPM's chain."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(
        beta_start=1e-4, beta_end=0.02, prediction_type="sample", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    x = noise(seed)
    for step in scheduler.timesteps:
        mean = denoised(x, (float(step) + 1) / 1000, DDPM())
        x = scheduler.step(mean, step, x).prev_sample
    return x


def grey(x: Tensor) -> NDArray[np.uint8]:
    """Return 256 grey levels with shape (N, 1, 8, 8)."""
    levels = ((x.double() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).reshape(-1, 1, 8, 8).numpy()


def in_sets(folder: Path, x: Tensor) -> str:
    """Write ADM's files, one for each set; return the folder's name."""
    folder.mkdir()
    for number, one in enumerate(grey(x).reshape(SETS, COUNT, 1, 8, 8)):
        colours = one.transpose(0, 2, 3, 1).repeat(3, axis=3)
        np.savez(folder / f"{number:02}.npz", arr_0=colours)
    return folder.name


def in_images(folder: Path, x: Tensor) -> str:
    """Write PNG files by diffusers' own conversion; return the folder's name."""
    from diffusers.image_processor import VaeImageProcessor

    folder.mkdir()
    images = (x.reshape(-1, 8, 8, 1) / 2 + 0.5).clamp(0, 1).numpy()
    for number, image in enumerate(VaeImageProcessor.numpy_to_pil(images)):
        image.save(folder / f"{number}.png")
    return folder.name


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project's folder with draws of the mixture for its data, and our samples of it."""
    root = tmp_path_factory.mktemp("project")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["evaluation"] |= {"floor_repeats": 10, "panel": 0, "margin": 0.25}
    yaml.dump(params, root / "params.yaml")
    data = root / "data/raw/mixture"
    data.mkdir(parents=True)
    draw = torch.Generator().manual_seed(9)
    labels = torch.randint(10, (REAL,), generator=draw)
    x = MEANS[labels] + STD * torch.randn(REAL, 64, generator=draw)
    write_images(data / "images.npz", grey(x), labels.numpy())
    (data / "source.yaml").write_text("{kind: arrays, path: images.npz}")
    samples = ours()
    in_sets(root / "ours", samples)
    write_images(root / "ours.npz", grey(samples[:FEW]))
    return root


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def test_the_score_is_the_oracle_s() -> None:
    exact = GaussianMixture(MEANS.tolist(), [STD] * 10, [0.1] * 10)
    x = noise(0)[:50]
    for t in (0.01, 0.2, 1.0):
        known = exact.denoised(x.double(), torch.full((50,), t, dtype=torch.float64), VP())
        torch.testing.assert_close(denoised(x, t, VP()).double(), known, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "draw", "worse"),
    [
        (
            "azula",
            lambda: azula_s("HeunSampler", 64, 1),
            lambda: azula_s("EulerSampler", 10, 2),
        ),
        (
            "diffusers",
            lambda: diffusers_s("DPMSolverMultistepScheduler", 100, 3),
            lambda: diffusers_s("DDIMScheduler", 10, 4),
        ),
    ],
)
def test_equal_samples_are_equivalent_and_ten_steps_of_euler_are_worse(
    name: str,
    draw: Callable[[], Tensor],
    worse: Callable[[], Tensor],
    project: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All solve the probability flow of the same exact score, from noise of their own."""
    theirs = in_sets(project / name, draw())
    found = judged(capsys, theirs, "ours", "--dataset", "mixture")
    (verdict,) = found["verdicts"]
    assert verdict["answer"] == "equivalent"
    sides = [found["samples"][one]["whole"]["held_out"] for one in (name, "ours")]
    error = np.hypot(*(side["std"] for side in sides)) / SETS**0.5
    assert abs(verdict["difference"]) < 3 * error
    # Both are at the floor: the samples are the data's law.
    for one in (name, "ours"):
        whole = found["samples"][one]["whole"]
        deviation = np.hypot(whole["held_out"]["std"] / SETS**0.5, whole["floor"]["std"])
        assert abs(whole["held_out"]["mean"] - whole["floor"]["value"]) < 3 * deviation
        assert not whole["memorised"]
    bad = in_images(project / f"{name}_worse", worse()[:FEW])
    found = judged(capsys, bad, "ours.npz", "--dataset", "mixture")
    (verdict,) = found["verdicts"]
    assert verdict["answer"] == "worse"
    assert verdict["difference"] > 10 * verdict["margin"]
