"""Parity with azula's samplers, on our processes and the same noise, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scoremodel.processes.cosine import CosineVP
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.grid import time_grid
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.probability_flow import Euler
from scoremodel.samplers.reverse_sde import DDIM, Ancestral
from tests.parity.peers import denoised, ours, standard_normal

pytestmark = pytest.mark.parity
azula = pytest.importorskip("azula")


def theirs(name: str, process: SDE, steps: int, x: Tensor, **options: float) -> Tensor:
    """Return azula's result on our grid, ended as ours is: by the denoised mean at t_min."""
    from azula import denoise, noise, sample

    class Schedule(noise.Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return process.alpha(t), process.sigma(t)

    class Exact(denoise.Denoiser):
        schedule = Schedule()

        def forward(self, x_t: Tensor, t: Tensor) -> denoise.DiracPosterior:
            return denoise.DiracPosterior(mean=denoised(x_t, t, process))

    sampler = getattr(sample, name)(
        Exact(), steps=steps - 1, stop=process.t_min, silent=True, dtype=torch.float64, **options
    )
    given = standard_normal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: next(given))
        out: Tensor = sampler(x)
    return denoised(out, process.t_min, process)


@pytest.mark.parametrize("steps", [5, 20, 100])
@pytest.mark.parametrize("process", [VE(0.01, 50.0), VP(), SubVP(), CosineVP()], ids=str)
@pytest.mark.parametrize(
    ("peer", "options", "sampler", "own"),
    [
        ("DDPMSampler", {}, Ancestral, {}),
        # azula's eta multiplies the variance, DDIM's η the standard deviation
        ("DDIMSampler", {"eta": 0.25}, DDIM, {"eta": 0.5}),
        ("DDIMSampler", {"eta": 0.0}, DDIM, {"eta": 0.0}),
        ("EulerSampler", {}, Euler, {}),
        ("HeunSampler", {}, Heun, {}),
    ],
)
def test_the_same_steps_and_noise_give_the_same_samples(
    peer: str,
    options: dict[str, float],
    sampler: type[Sampler],
    own: dict[str, float],
    process: SDE,
    steps: int,
) -> None:
    x = process.prior_std() * next(standard_normal(7))
    mine = ours(sampler(steps, grid="uniform", **own), process, x)  # type: ignore[arg-type]
    torch.testing.assert_close(
        mine, theirs(peer, process, steps, x, **options), rtol=1e-8, atol=1e-8
    )


def test_ve_s_noise_levels_are_azula_s() -> None:
    from azula.noise import VESchedule

    t = torch.tensor(time_grid(VE(0.01, 50.0), 30, "uniform"), dtype=torch.float64)
    torch.testing.assert_close(VE(0.01, 50.0).sigma(t), VESchedule(0.01, 50.0)(t)[1])
