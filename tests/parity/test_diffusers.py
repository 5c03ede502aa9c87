"""Parity with diffusers' schedulers on DDPM's chain and the same noise.

Their tables are in single precision, which bounds the agreement.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scoremodel.parametrisation import convert
from scoremodel.processes.ddpm import DDPM
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler
from scoremodel.samplers.reverse_sde import DDIM, Ancestral
from tests.parity.peers import denoised, ours, standard_normal

pytestmark = pytest.mark.parity
pytest.importorskip("diffusers")

CHAIN = DDPM()
COMMON = {"beta_start": 1e-4, "beta_end": 0.02}


def levels(steps: int) -> list[int]:
    """Return `steps` levels of 1000, equally spaced, from the last one down ("trailing")."""
    return [round(1000 - index * 1000 / steps) for index in range(steps)]


def theirs(name: str, steps: int, x: Tensor, scaled: bool = False, **options: Any) -> Tensor:
    """Return a scheduler's result, from x at t = 1.

    Args:
        name: the scheduler's class.
        steps: number of steps.
        x: x_t at t = 1.
        scaled: whether the scheduler's state is x_t / alpha_t.
        options: its configuration.
    """
    import diffusers

    # Euler-Ancestral takes the noise only, the others take the denoised mean as it is.
    kind = "epsilon" if name == "EulerAncestralDiscreteScheduler" else "sample"
    scheduler = getattr(diffusers, name)(**COMMON, prediction_type=kind, **options)
    module = type(scheduler).__module__
    if name in ("DDIMScheduler", "EulerAncestralDiscreteScheduler"):
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=[level - 1 for level in levels(steps)])
    given = standard_normal()
    state = x / CHAIN.alpha(torch.tensor(1.0, dtype=torch.float64)) if scaled else x
    with pytest.MonkeyPatch.context() as patch:
        for number, step in enumerate(scheduler.timesteps, 1):
            # With its larger variance their DDPM adds noise on the last step, which ours leaves out.
            noise = next(given) * (number < len(scheduler.timesteps))
            patch.setattr(f"{module}.randn_tensor", lambda *_, z=noise, **__: z, raising=False)
            x_t = scheduler.scale_model_input(state, step) if scaled else state
            t = torch.full((len(x),), (float(step) + 1) / 1000, dtype=torch.float64)
            said = denoised(x_t, t, CHAIN)
            if kind == "epsilon":
                said = convert(said, x_t.double(), t, CHAIN, "denoised", "noise")
            state = scheduler.step(said, step, state).prev_sample
    return state


@pytest.mark.parametrize("steps", [5, 20, 50, 200])
@pytest.mark.parametrize(
    ("peer", "options", "sampler", "own"),
    [
        ("DDPMScheduler", {"variance_type": "fixed_small", "clip_sample": False}, Ancestral, {}),
        ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}, Ancestral,
         {"variance": "kernel"}),
        ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, DDIM, {}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, DPMSolver, {}),
        ("DPMSolverMultistepScheduler",
         {"final_sigmas_type": "zero", "algorithm_type": "sde-dpmsolver++"}, SDEDPMSolver, {}),
        ("EulerDiscreteScheduler", {"scaled": True}, Euler, {}),
        ("EulerAncestralDiscreteScheduler",
         {"scaled": True, "timestep_spacing": "trailing"}, Ancestral, {}),
        ("HeunDiscreteScheduler", {"scaled": True}, Heun, {}),
    ],
)  # fmt: skip
def test_the_same_steps_and_noise_give_the_same_samples(
    peer: str, options: dict[str, Any], sampler: type[Sampler], own: dict[str, Any], steps: int
) -> None:
    x = next(standard_normal(7))
    grid = tuple(level / 1000 for level in levels(steps))
    mine = ours(sampler(steps, grid=grid, **own), CHAIN, x)
    torch.testing.assert_close(mine, theirs(peer, steps, x, **options), rtol=0, atol=2e-4)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_s_noise_is_the_same(eta: float) -> None:
    import diffusers

    scheduler = diffusers.DDIMScheduler(
        **COMMON, prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(50)
    given, state = standard_normal(), next(standard_normal(7))
    for index, step in enumerate(scheduler.timesteps):
        mean = denoised(state, (float(step) + 1) / 1000, CHAIN)
        last = index == 49
        noise = torch.zeros_like(state) if last else next(given)
        state = scheduler.step(mean, step, state, eta=eta, variance_noise=noise).prev_sample
    grid = tuple(level / 1000 for level in levels(50))
    mine = ours(DDIM(50, grid=grid, eta=eta), CHAIN, next(standard_normal(7)))
    torch.testing.assert_close(mine, state, rtol=0, atol=2e-4)
