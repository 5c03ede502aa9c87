"""Samplers against closed forms on Gaussian data, and what they promise about seeds and calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.base import SAMPLERS, Sampler
from scoremodel.samplers.grid import time_grid
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.probability_flow import Euler, RungeKutta
from scoremodel.samplers.reverse_sde import EulerMaruyama
from scoremodel.samplers.sampling import sample
from tests.scoremodel.exact import MEAN, STD, ends

GAUSSIAN = GaussianMixture([[MEAN]], [STD], [1.0])
PROCESSES = [VE(0.01, 50.0), VP(), SubVP()]


def exact(sde: SDE):
    return lambda x, t: GAUSSIAN.denoised(x, t, sde)


def draw(sampler: Sampler, sde: SDE, count: int, **options: object) -> Tensor:
    settings = {
        "process": sde,
        "shape": (1,),
        "dtype": torch.float64,
        "mean": MEAN,
        "batch_size": 4096,
    }
    return sample(exact(sde), sampler, count, 0, **(settings | options)).x  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", ["uniform", "log_snr", "edm"])
@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_grids_fall_from_one_to_t_min(sde: SDE, grid: str) -> None:
    times = np.array(time_grid(sde, 18, grid))  # type: ignore[arg-type]
    assert times[0] == 1.0
    assert times[-1] == sde.t_min
    assert (np.diff(times) < 0).all()


def test_edm_grid_is_the_published_formula() -> None:
    ve = VE(0.002, 80.0)
    sigma = ve.sigma(torch.tensor(time_grid(ve, 18, "edm"), dtype=torch.float64))
    low = float(ve.sigma(torch.tensor(ve.t_min, dtype=torch.float64)))
    i = torch.arange(18, dtype=torch.float64)
    published = (80 ** (1 / 7) + i / 17 * (low ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma, published, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpm_solver", 2)])
@pytest.mark.parametrize("grid", ["uniform", "log_snr", "edm"])
@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_ode_samplers_converge_to_the_exact_map_at_their_order(
    sde: SDE, grid: str, name: str, order: int
) -> None:
    """O3: x_0 = alpha_0 m + (x_T − alpha_T m) sqrt(v_0 / v_T), error ~ steps^−order."""
    t = torch.tensor([1.0, sde.t_min], dtype=torch.float64)
    alpha, variance = sde.alpha(t), sde.alpha(t) ** 2 * STD**2 + sde.sigma(t) ** 2

    # The uniform grid reaches its asymptotic order late: its last steps span a decade of noise.
    counts = [400, 800, 1600] if grid == "uniform" else [50, 100, 200]
    if grid == "uniform" and isinstance(sde, VP):
        counts = [4000, 8000]
    z = torch.linspace(-3, 3, 8, dtype=torch.float64)
    x = sde.prior_std() * z + (MEAN if sde.prior_keeps_mean else 0.0)
    target = alpha[1] * MEAN + (x - alpha[0] * MEAN) * (variance[1] / variance[0]).sqrt()
    errors = []
    for steps in counts:
        end = ends(SAMPLERS.make(name, steps=steps, grid=grid, denoise_last=False), sde, x)
        errors.append(float((end - target).abs().max()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "nfe"), [(Heun(18), 35), (Euler(7), 7), (EulerMaruyama(9), 9)], ids=str
)
def test_nfe_is_the_number_of_calls(sampler: Sampler, nfe: int) -> None:
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return exact(VP())(x, t)

    samples = sample(
        counted, sampler, 30, 0, batch_size=10, process=VP(), shape=(1,), dtype=torch.float64
    )
    assert samples.nfe == nfe
    assert calls == 3 * nfe


@pytest.fixture(scope="module")
def untrained() -> Denoiser:
    torch.manual_seed(0)
    network = {"kind": "unet", "width": 16, "multipliers": [1, 2], "attention_levels": [1]}
    denoiser = Denoiser(network, VP(), (1, 8, 8), [-0.4], 0.75, 17)
    for parameter in denoiser.parameters():  # the zero-initialised layers would hide everything
        torch.nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


@pytest.mark.parametrize("sampler", [Heun(4), EulerMaruyama(7)], ids=str)
def test_sample_i_is_a_function_of_seed_and_i(untrained: Denoiser, sampler: Sampler) -> None:
    """O10: bit for bit, whatever the number of samples, the batch size and the first number."""
    whole = sample(untrained, sampler, 40, 7, batch_size=40).x
    for batch_size in (7, 16, 19, 21, 39):
        assert torch.equal(sample(untrained, sampler, 40, 7, batch_size=batch_size).x, whole)
    for start, count in ((33, 1), (20, 5), (3, 17)):
        part = sample(untrained, sampler, count, 7, start=start).x
        assert torch.equal(part, whole[start : start + count])
    assert not torch.equal(sample(untrained, sampler, 40, 8).x, whole)


@pytest.mark.parametrize(
    ("count", "batch_size", "rows"),
    [(448, 300, [224, 224]), (50, 40, [32, 32]), (20, 3, [16, 16]), (5, 128, [16])],
)
def test_the_network_sees_no_rows_but_those_asked_for(
    untrained: Denoiser, count: int, batch_size: int, rows: list[int]
) -> None:
    """And, on a CPU, those that fill a batch up to a multiple of 16, which nobody else sees."""
    seen: list[int] = []
    states: list[int] = []
    hook = untrained.network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    out = sample(
        untrained,
        Euler(1),
        count,
        0,
        batch_size=batch_size,
        trajectory=True,
        callback=lambda _, x: states.append(len(x)),
    )
    hook.remove()
    assert seen == rows
    assert sum(states) == count
    assert out.trajectory is not None
    assert out.trajectory.shape == (2, count, 1, 8, 8)
    assert out.nfe == 1


def test_no_two_steps_share_their_noise() -> None:
    """Torch keeps 32 bits of a seed: indices must not be hashed into them."""
    from scoremodel.rng import derive_seed

    low = {derive_seed(3, "noise", index) % 2**32 for index in range(200_000)}
    assert len(low) == 200_000


def test_times_of_one_s_own_are_taken_as_they_are() -> None:
    times = (1.0, 0.7, 0.2, 0.01)
    assert time_grid(VP(), 4, times) == list(times)
    for wrong in ((1.0, 0.7), (1.0, 0.2, 0.7, 0.1), (0.9, 0.5, 0.2, 0.1), (1.0, 0.5, 0.1, 0.0)):
        with pytest.raises(ValueError, match="4 times must fall from 1 to more than 0"):
            time_grid(VP(), 4, wrong)


def test_two_times_of_one_level_are_refused() -> None:
    with pytest.raises(ValueError, match="two are the same level of ddpm"):
        time_grid(DDPM(levels=10, beta_last=0.5), 3, (1.0, 0.98, 0.5))


def test_an_adaptive_solver_says_that_a_model_is_not_finite() -> None:
    with pytest.raises(FloatingPointError, match="runge_kutta: the model's output is not finite"):
        sample(lambda x, t: x * torch.nan, RungeKutta(), 2, 0, process=VP(), shape=(1,))


def test_the_callback_sees_every_step_and_the_trajectory_keeps_them() -> None:
    seen: list[tuple[int, Tensor]] = []
    out = sample(
        exact(VP()),
        Heun(5),
        6,
        0,
        process=VP(),
        shape=(1,),
        dtype=torch.float64,
        batch_size=6,
        trajectory=True,
        callback=lambda step, x: seen.append((step, x.clone())),
    )
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert out.trajectory is not None
    torch.testing.assert_close(torch.stack([x for _, x in seen]), out.trajectory[1:])
    torch.testing.assert_close(out.trajectory[-1], out.x)
    again = sample(exact(VP()), Heun(5), 6, 0, process=VP(), shape=(1,), dtype=torch.float64)
    torch.testing.assert_close(again.x, out.x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "sample: count: 0 is not allowed, allowed: an integer from 1 to"),
        ({"process": None}, "needs process= and shape="),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    settings: dict[str, object] = {"count": 4, "process": VP(), "shape": (1,)} | arguments
    count = settings.pop("count")
    with pytest.raises(ValueError, match=words):
        sample(exact(VP()), Heun(4), count, 0, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="heun: steps: 0 is not allowed"):
        Heun(0)
