"""Every sampler × every process that defines it, on Gaussian data, and mistakes that must be caught.

On N(m, s²) every sampler whose coefficients do not look at the state is affine: its result is
B + Σ_k C_k z_k with the noises z_k it has drawn, the prior's first (O4). B and every C_k are read off by
drawing unit vectors in place of noise, and must be those of the recursions here to rounding. The
recursions are written from the papers, in terms of score or noise, where the library works with the
denoised mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scoremodel.oracles import GaussianMixture
from scoremodel.processes.base import Process
from scoremodel.processes.cosine import CosineVP
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers import grid, langevin_dynamics, reverse_sde
from scoremodel.samplers.base import SAMPLERS, GridSampler, Sampler
from scoremodel.samplers.grid import time_grid
from scoremodel.samplers.heun import Heun, StochasticHeun
from scoremodel.samplers.langevin_dynamics import AnnealedLangevin, Langevin, unadjusted_langevin
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler, RungeKutta
from scoremodel.samplers.reverse_sde import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
)
from scoremodel.samplers.sampling import sample
from tests.scoremodel.exact import MEAN, STD, Law, assert_same, law, values

GAUSSIAN = GaussianMixture([[MEAN]], [STD], [1.0])
SDES: list[SDE] = [VE(0.01, 50.0), VP(), SubVP(), CosineVP()]
CHAINS: list[Process] = [NCSN(0.01, 50.0, 200), DDPM()]


def draw(
    sampler: Sampler, process: Process, count: int, oracle: GaussianMixture = GAUSSIAN
) -> Tensor:
    return sample(
        lambda x, t: oracle.denoised(x, t, process),
        sampler,
        count,
        0,
        process=process,
        shape=(oracle.means.shape[1],),
        dtype=torch.float64,
        mean=MEAN,
    ).x


Affine = tuple[float, float, float]
"""x ← A x + B + C z."""


def ancestral(process: Process, t: float, s: float | None, variance: str) -> Affine:
    """DDPM's eq. 7 with eps = (x − alpha m) sigma / v, and sigma_s = 0 at the end."""
    alpha_t, sigma_t, v_t = values(process, t)
    alpha_s, sigma_s, _ = values(process, s) if s is not None else (1.0, 0.0, 0.0)
    a = alpha_t / alpha_s
    beta = sigma_t**2 - a**2 * sigma_s**2
    slope = 1 / a * (1 - beta / v_t)
    offset = 1 / a * beta / v_t * alpha_t * MEAN
    noise = beta * sigma_s**2 / sigma_t**2 if variance == "posterior" else beta
    return slope, offset, math.sqrt(noise) if s is not None else 0.0


def reverse_diffusion(process: Process, t: float, s: float | None, _: str) -> Affine:
    """x_s = x_t − f(x_t) + G² score + G z with f(x) = (a − 1) x; no noise at the end."""
    assert s is not None
    alpha_t, sigma_t, v_t = values(process, t)
    alpha_s, sigma_s, _v = values(process, s)
    a = alpha_t / alpha_s
    g2 = sigma_t**2 - a**2 * sigma_s**2
    return 2 - a - g2 / v_t, g2 / v_t * alpha_t * MEAN, math.sqrt(g2)


def ddim(process: Process, t: float, s: float | None, eta: float) -> Affine:
    """Eq. 12: x_s = alpha_s x̂_0 + sqrt(sigma_s² − c²) eps + c z."""
    alpha_t, sigma_t, v_t = values(process, t)
    alpha_s, sigma_s, _ = values(process, s) if s is not None else (1.0, 0.0, 0.0)
    c = eta * sigma_s / sigma_t * math.sqrt(sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2)
    eps_slope = sigma_t / v_t  # eps = sigma (x − alpha m) / v
    guess_slope = (1 - sigma_t * eps_slope) / alpha_t  # x̂_0 = (x − sigma eps) / alpha
    guess_offset = sigma_t * eps_slope * MEAN
    keep = math.sqrt(sigma_s**2 - c**2)
    return (
        alpha_s * guess_slope + keep * eps_slope,
        alpha_s * guess_offset - keep * eps_slope * alpha_t * MEAN,
        c,
    )


def euler_maruyama(process: Process, t: float, s: float | None, _: str) -> Affine:
    """x_s = x_t − Δ (f x − g² score) + g sqrt(Δ) z with the score −(x − alpha m) / v."""
    assert isinstance(process, SDE)
    assert s is not None
    alpha, _sigma, v = values(process, t)
    at = torch.tensor(t, dtype=torch.float64)
    f, g2, delta = float(process.f(at)), float(process.g(at)) ** 2, t - s
    return 1 - delta * f - delta * g2 / v, delta * g2 * alpha * MEAN / v, math.sqrt(delta * g2)


class Recursion:
    """A state with one or more entries, the first of them x, which steps move and to which they add.

    Its columns are the coefficients of the noises drawn so far.
    """

    def __init__(self, process: Process, entries: int = 1, scale: float = 1.0) -> None:
        self.mean, self.columns = np.zeros(entries), np.zeros((entries, 1))
        self.mean[0] = (MEAN if process.prior_keeps_mean else 0.0) / scale
        self.columns[0, 0] = process.prior_std() / scale

    def move(self, matrix: Any, offset: Any = 0.0) -> None:
        matrix = np.atleast_2d(matrix)
        self.mean, self.columns = matrix @ self.mean + offset, matrix @ self.columns

    def add(self, noise: float) -> None:
        if noise:
            column = np.zeros((len(self.mean), 1))
            column[0] = noise
            self.columns = np.hstack([self.columns, column])

    def law(self) -> Law:
        return Law(float(self.mean[0]), self.columns[0])


def published(
    process: Process, times: list[float | None], step: Callable[..., Affine], option: Any
) -> Law:
    state = Recursion(process)
    for index, (t, s) in enumerate(pairwise(times)):
        a, b, c = step(process, t, s, option)
        state.move(a, b)
        state.add(0.0 if index == len(times) - 2 else c)
    return state.law()


def annealed(process: Process, step_size: float, repeats: int, levels: int) -> Law:
    """Algorithm 1 of NCSN for alpha = 1, and the mean D at the smallest level."""
    state = Recursion(process)
    for t in time_grid(process, levels, "log_snr"):
        _, sigma, v = values(process, t)
        for _ in range(repeats):
            e = step_size * sigma**2
            state.move(1 - e / v, e * MEAN / v)
            state.add(math.sqrt(2 * e))
    state.move(STD**2 / v, MEAN * (1 - STD**2 / v))
    return state.law()


PUBLISHED = [
    (Ancestral, ancestral, "posterior", True),
    (Ancestral, ancestral, "kernel", True),
    (ReverseDiffusion, reverse_diffusion, "", False),
    (DDIM, ddim, 0.0, True),
    (DDIM, ddim, 0.5, True),
    (DDIM, ddim, 1.0, True),
    (EulerMaruyama, euler_maruyama, "", False),
]


@pytest.mark.parametrize("steps", [10, 60])
@pytest.mark.parametrize("process", [*SDES, *CHAINS], ids=str)
@pytest.mark.parametrize(
    ("sampler", "step", "option", "to_zero"),
    PUBLISHED,
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_affine_samplers_take_the_published_step(
    sampler: type[GridSampler],
    step: Callable[..., Affine],
    option: Any,
    to_zero: bool,
    process: Process,
    steps: int,
) -> None:
    extra = {Ancestral: {"variance": option}, DDIM: {"eta": option}}.get(sampler, {})  # type: ignore[type-abstract]
    made = sampler(steps, grid="uniform", **extra)
    if sampler is EulerMaruyama and not isinstance(process, SDE):
        return
    times: list[float | None] = list(time_grid(process, steps + (not to_zero), "uniform"))
    expected = published(process, times + [None] * to_zero, step, option)
    assert_same(law(made, process, steps + 2), expected)


@pytest.mark.parametrize("process", [VE(0.01, 50.0), NCSN(0.01, 50.0, 200)], ids=str)
def test_annealed_langevin_is_the_published_algorithm(process: Process) -> None:
    sampler = AnnealedLangevin(40, steps_per_level=3, step_size=0.2)
    assert_same(law(sampler, process, 124), annealed(process, 0.2, 3, 40))


@pytest.mark.parametrize(
    ("levels", "repeats", "step_size", "documented"),
    [
        (29, 5, None, 1.174),
        (50, 5, None, 1.121),
        (109, 5, None, 1.083),
        (219, 5, None, 1.068),
        (29, 20, None, 1.093),
        (50, 20, None, 1.060),
        (109, 20, None, 1.035),
        (219, 20, None, 1.024),
        (29, 5, 0.5, 1.083),
        (50, 5, 0.5, 1.046),
        (109, 5, 0.5, 1.020),
        (219, 5, 0.5, 1.010),
    ],
)
def test_annealed_langevin_widens_by_what_its_docstring_says(
    levels: int, repeats: int, step_size: float | None, documented: float
) -> None:
    """By the exact law: the data's width is STD, so the ladder for N(0, 1) is STD times as high."""
    ladder = NCSN(0.01 * STD, 50.0 * STD, levels)
    sampler = AnnealedLangevin(steps_per_level=repeats, step_size=step_size)
    found = law(sampler, ladder, levels * repeats + 2)
    assert math.sqrt(found.variance) / STD == pytest.approx(documented, abs=1e-3)


def corrected(
    process: Process,
    steps: int,
    snr: float,
    step: Callable[..., Affine] = reverse_diffusion,
    option: Any = "",
    to_zero: bool = False,
) -> Law:
    """A predictor, and at the time reached Song's AnnealedLangevinDynamics, α = alphas[timestep]."""
    state = Recursion(process)
    times: list[float | None] = list(time_grid(process, steps + (not to_zero), "uniform"))
    for index, (t, s) in enumerate(pairwise(times + [None] * to_zero)):
        a, b, c = step(process, t, s, option)
        state.move(a, b)
        if index < steps - 1:
            state.add(c)
            assert s is not None
            alpha_s, sigma_s, v_s = values(process, s)
            e = 2 * (values(process, t)[0] / alpha_s) ** 2 * (snr * sigma_s) ** 2  # type: ignore[arg-type]
            state.move(1 - e / v_s, e * alpha_s * MEAN / v_s)
            state.add(math.sqrt(2 * e))
    return state.law()


@pytest.mark.parametrize("process", [*SDES, *CHAINS], ids=str)
def test_predictor_corrector_by_sigma_is_the_published_algorithm(process: Process) -> None:
    sampler = PredictorCorrector(30, snr=0.2, step_size="sigma")
    assert_same(law(sampler, process, 62), corrected(process, 30, 0.2))


@pytest.mark.parametrize(
    ("predictor", "step", "option", "to_zero"),
    [
        ("euler_maruyama", euler_maruyama, "", False),
        ("ancestral", ancestral, "posterior", True),
        (Ancestral(1, grid="edm", variance="kernel"), ancestral, "kernel", True),
        (DDIM(1, eta=0.5), ddim, 0.5, True),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_a_corrector_follows_any_linear_sampler_s_step(
    predictor: Any, step: Callable[..., Affine], option: Any, to_zero: bool
) -> None:
    sampler = PredictorCorrector(20, snr=0.2, step_size="sigma", predictor=predictor)
    for process in SDES:
        expected = corrected(process, 20, 0.2, step, option, to_zero)
        assert_same(law(sampler, process, 42), expected)
    with pytest.raises(
        ValueError, match=r"predictor: Heun.* is not allowed, allowed: reverse_diff"
    ):
        PredictorCorrector(5, predictor=Heun(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("process", [VE(0.01, 50.0), VP()], ids=str)
@pytest.mark.parametrize(("dimension", "count"), [(1, 4000), (2, 2000), (8, 500), (784, 10)])
def test_predictor_corrector_keeps_the_data_s_width_in_every_dimension(
    dimension: int, count: int, process: Process
) -> None:
    """N(−3, 4.3²), 1,000 steps: to 2 % and four standard errors. By norms it is thousands on a line."""
    mean, std = -3.0, 4.3

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha(t[:1]), process.sigma(t[:1])
        k = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return mean + k * (x - alpha * mean)

    x = sample(
        denoise,
        PredictorCorrector(1000),
        count,
        0,
        process=process,
        shape=(dimension,),
        dtype=torch.float64,
        mean=mean,
        batch_size=count,
    ).x
    error = std / math.sqrt(x.numel())
    assert abs(float(x.mean()) - mean) < 4 * error + 0.02
    assert abs(float(x.std()) - std) < 0.02 * std + 4 * error / math.sqrt(2)


def multistep(process: Process, times: list[float], noisy: bool) -> Law:
    """DPM-Solver++(2M) and its SDE form, in λ = ln(alpha / sigma) and the paper's r_i.

    The state is (x, D of the step before).
    """
    state = Recursion(process, entries=2)
    h_before = 0.0
    for index, t in enumerate(times):
        alpha_t, sigma_t, v_t = values(process, t)
        k = alpha_t * STD**2 / v_t
        level = MEAN * (1 - alpha_t * k)
        if index == len(times) - 1:
            move, offset, noise = [[k, 0], [k, 0]], np.array([level, level]), 0.0
        else:
            alpha_s, sigma_s, _ = values(process, times[index + 1])
            h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
            weight = h / (2 * h_before) if h_before else 0.0
            if noisy:
                a, b = sigma_s / sigma_t * math.exp(-h), alpha_s * (1 - math.exp(-2 * h))
                noise = sigma_s * math.sqrt(1 - math.exp(-2 * h))
            else:
                a, b, noise = sigma_s / sigma_t, -alpha_s * (math.exp(-h) - 1), 0.0
            move = [[a + b * (1 + weight) * k, -b * weight], [k, 0]]
            offset = np.array([b * (1 + weight) * level, level])
            h_before = h
        state.move(move, offset)
        state.add(noise)
    return state.law()


def edm_stochastic(process: SDE, times: list[float], churn: float) -> Law:
    """Algorithm 2 of EDM for y = x / alpha, where D(y, r) − m = s² (y − m) / (s² + r²)."""
    state = Recursion(process, scale=values(process, 1.0)[0])
    levels = [values(process, t)[1] / values(process, t)[0] for t in times] + [0.0]
    for r_t, r_s in pairwise(levels):
        gamma = min(churn / len(times), math.sqrt(2) - 1) if 0.05 <= r_t <= 50 else 0.0
        r_hat = min(r_t * (1 + gamma), levels[0])
        state.add(1.003 * math.sqrt(r_hat**2 - r_t**2))
        slope = r_hat / (STD**2 + r_hat**2)
        factor = 1 + (r_s - r_hat) * slope
        if r_s:
            factor = 1 + (r_s - r_hat) / 2 * (slope + r_s / (STD**2 + r_s**2) * factor)
        state.move(factor, MEAN * (1 - factor))
    return state.law()


@pytest.mark.parametrize("steps", [6, 40])
@pytest.mark.parametrize("process", SDES, ids=str)
@pytest.mark.parametrize("name", ["dpm_solver", "sde_dpm_solver", "heun", "stochastic_heun"])
def test_second_order_samplers_take_the_published_step(name: str, process: SDE, steps: int) -> None:
    sampler = SAMPLERS.make(name, steps=steps, grid="log_snr")
    times = time_grid(process, steps, "log_snr")
    if name.endswith("heun"):
        expected = edm_stochastic(process, times, 40.0 if name == "stochastic_heun" else 0.0)
    else:
        expected = multistep(process, times, name == "sde_dpm_solver")
    assert_same(law(sampler, process, steps + 2), expected)


# With steps so many that the data come out, and an upper bound of the noises drawn; 0 if the sampler
# is not affine, whose samples are then counted. A sampler that is not here has 200 steps, if any.
FINE: dict[str, tuple[Sampler, int]] = {
    "annealed_langevin": (AnnealedLangevin(100, steps_per_level=30, step_size=0.05), 3002),
    "ancestral": (Ancestral(200, grid="log_snr"), 202),
    "ddim": (DDIM(150, grid="edm", eta=0.3), 202),
    "dpm_solver": (DPMSolver(60), 2),
    "euler": (Euler(400, grid="log_snr"), 2),
    "euler_maruyama": (EulerMaruyama(800), 802),
    "heun": (Heun(60), 2),
    "langevin": (Langevin(200, step_size=0.004, ratio=0.05, start_std=1.0), 202),
    "predictor_corrector": (PredictorCorrector(150, grid="log_snr", snr=0.05), 0),
    "reverse_diffusion": (ReverseDiffusion(400, grid="log_snr"), 402),
    "runge_kutta": (RungeKutta(), 0),
    "sde_dpm_solver": (SDEDPMSolver(100, grid="log_snr"), 202),
    "stochastic_heun": (StochasticHeun(80, s_churn=20.0), 82),
}


def fine(name: str) -> tuple[Sampler, int]:
    kind = SAMPLERS[name]
    asked = {"steps": 200} if "steps" in {field.name for field in dataclasses.fields(kind)} else {}  # type: ignore[arg-type]
    return FINE.get(name) or (SAMPLERS.make(name, **asked), 0)


@pytest.mark.parametrize("process", [*SDES, *CHAINS], ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_reaches_the_data_on_every_process_that_defines_it(
    name: str, process: Process
) -> None:
    """With many steps the data's own moments come out, to 8 %, or 4 % and the error of counting."""
    sampler, draws = fine(name)
    if not isinstance(process, SDE):
        if name in ("euler_maruyama", "stochastic_heun", "runge_kutta"):
            with pytest.raises(ValueError, match=f"{name} needs a process with drift"):
                sampler.plan(process)
            return
        if isinstance(sampler, GridSampler):
            sampler = dataclasses.replace(sampler, grid="uniform", steps=199)
            draws = draws and max(draws, 30 * 199 + 2 if name == "annealed_langevin" else 202)
    if draws:
        found = law(sampler, process, draws)
        assert abs(found.mean - MEAN) < 0.01
        assert abs(math.sqrt(found.variance) / STD - 1) < 0.08
        return
    # The corrector's step rests on norms, which mean something in many dimensions only.
    oracle = GaussianMixture([[MEAN] * 64], [STD], [1.0])
    x = draw(sampler, process, 100 if name != "runge_kutta" else 16, oracle)
    assert abs(float(x.mean()) - MEAN) < 0.01 + 4 * STD / math.sqrt(x.numel())
    assert abs(float(x.std()) / STD - 1) < 0.04 + 4 / math.sqrt(2 * x.numel())


@pytest.mark.parametrize("process", SDES, ids=str)
def test_adaptive_runge_kutta_is_the_exact_map_to_its_tolerance(process: SDE) -> None:
    out = sample(
        lambda x, t: GAUSSIAN.denoised(x, t, process),
        RungeKutta(denoise_last=False),
        6,
        0,
        process=process,
        shape=(1,),
        dtype=torch.float64,
        mean=MEAN,
        batch_size=6,
        trajectory=True,
    )
    assert out.trajectory is not None
    (alpha_0, _, v_0), (alpha_1, _, v_1) = values(process, process.t_min), values(process, 1.0)
    exact = alpha_0 * MEAN + (out.trajectory[0] - alpha_1 * MEAN) * math.sqrt(v_0 / v_1)
    torch.testing.assert_close(out.x, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("process", SDES, ids=str)
@pytest.mark.parametrize("spacing", ["uniform", "log_snr", "edm"])
def test_steps_that_amplify_the_noise_are_known(process: SDE, spacing: Any) -> None:
    """Below 1 the samples end within twice the prior's width of the data; a few steps are above."""
    samplers = [EulerMaruyama(steps, grid=spacing) for steps in range(1, 31)]
    growths = [sampler.growth(sampler.plan(process), process) for sampler in samplers]
    assert all(growth > 1 for growth in growths[:4])
    for sampler, growth in zip(samplers, growths, strict=True):
        if growth <= 1:
            found = law(sampler, process, sampler.steps + 2)
            assert found.variance < (2 * process.prior_std()) ** 2


def test_five_steps_of_euler_maruyama_widen_ve_s_noise_42_times() -> None:
    process, sampler = VE(), EulerMaruyama(5)
    plan = sampler.plan(process)
    draw = torch.Generator().manual_seed(0)
    x = process.prior_std() * torch.randn(100_000, generator=draw, dtype=torch.float64)
    for step in plan[:-1]:  # data at 0
        x = step.a * x + step.c * torch.randn(len(x), generator=draw, dtype=torch.float64)
    growth = sampler.growth(plan, process)
    assert growth == pytest.approx(42, abs=0.5)
    # the standard error of a standard deviation is std / sqrt(2 N)
    assert float(x.std()) / process.prior_std() == pytest.approx(growth, rel=4 / math.sqrt(200_000))
    assert Heun(5).growth([], process) == 0.0


def test_stochastic_heun_without_churn_is_heun() -> None:
    still = draw(StochasticHeun(20, s_churn=0.0), VP(), 64)
    torch.testing.assert_close(still, draw(Heun(20), VP(), 64), rtol=1e-10, atol=1e-12)


def test_ddim_ties_euler_and_ancestral_together() -> None:
    for process in (*SDES, *CHAINS):
        euler = draw(Euler(12, grid="uniform"), process, 64)
        torch.testing.assert_close(draw(DDIM(12, grid="uniform"), process, 64), euler)
        whole = draw(DDIM(12, grid="uniform", eta=1.0), process, 64)
        torch.testing.assert_close(whole, draw(Ancestral(12, grid="uniform"), process, 64))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_langevin_has_its_exact_stationary_variance(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O7: 2 e T / (1 − (1 − e/v)²), neither v nor v T; the k-th noise has come to q^(n − k) of itself."""
    v, e, steps = STD**2, 0.02, 60

    def units(*_: Any, draws: range, **__: Any) -> Tensor:
        assert len(draws) == 1
        return (torch.arange(steps) == draws.start).double()[None, :, None]

    monkeypatch.setattr(langevin_dynamics, "random_normal", units)
    start = torch.full((steps, 1), MEAN, dtype=torch.float64)
    x = unadjusted_langevin(lambda x: -(x - MEAN) / v, start, e, steps, 0, temperature=temperature)
    coefficients = x[:, 0].numpy() - MEAN
    expected = math.sqrt(2 * e * temperature) * (1 - e / v) ** np.arange(steps - 1, -1, -1)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-9, atol=1e-14)
    variance = 2 * e * temperature / (1 - (1 - e / v) ** 2)
    assert float(np.square(coefficients).sum()) == pytest.approx(variance, rel=1e-9)
    assert abs(variance / (v * temperature) - 1) > 0.1


@pytest.mark.parametrize("process", [VE(0.01, 50.0), VP(), DDPM()], ids=str)
def test_langevin_of_a_model_stays_at_its_level_s_own_density(process: Process) -> None:
    """At r its stationary law is N(m, 2 e / (1 − (1 − e/v)²)), v = s² + r²; then D shrinks it by s²/v."""
    e, r = 0.05, 0.3
    found = law(Langevin(100, step_size=e, ratio=r, start_std=0.5), process, 102)
    t = process.t_of_ratio(torch.tensor(r, dtype=torch.float64))
    v = STD**2 + float(process.ratio(t)) ** 2
    variance = 2 * e / (1 - (1 - e / v) ** 2) * (STD**2 / v) ** 2
    assert found.mean == pytest.approx(MEAN, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-9)


def test_langevin_s_steps_that_diverge_are_refused() -> None:
    """Plain ones, and the corrector's: x ← (1 − 2 snr²) x + … does not converge for snr ≥ 1."""
    with pytest.raises(ValueError, match=r"predictor_corrector: snr: 1.0 is not allowed"):
        PredictorCorrector(5, snr=1.0)
    with pytest.raises(ValueError, match=r"diverges unless step_size < 0.0002\d*, got 0.001"):
        Langevin(5, step_size=1e-3).plan(VE(0.01, 50.0))


def test_langevin_chain_i_is_a_function_of_seed_and_i() -> None:
    score = lambda x: -x  # noqa: E731
    start = torch.zeros(10, 2)
    whole = unadjusted_langevin(score, start, 0.1, 5, 3)
    assert torch.equal(unadjusted_langevin(score, start[4:], 0.1, 5, 3, start=4), whole[4:])
    for step_size in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="step_size > 0"):
            unadjusted_langevin(score, start, step_size, 5, 3)


def levels_come_back() -> bool:
    """Whether the noise of each of 2,000 levels, asked for by its time, is that level's own."""
    chain = DDPM(1e-4, 0.01, 2000)
    t = torch.arange(1, 2001, dtype=torch.float64) / 2000
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.01, 2000, dtype=torch.float64), 0)
    return torch.allclose(chain.sigma(t), (1 - kept).sqrt(), rtol=1e-9)


def is_itself_among_outliers() -> bool:
    """Whether a predictor–corrector sample among far outliers is the sample alone."""
    process = VP()

    def skewed(x: Tensor, t: Tensor) -> Tensor:
        denoised = GAUSSIAN.denoised(x, t, process)
        denoised[1:] *= 100
        return denoised

    sampler = PredictorCorrector(5, step_size="norm")
    alone = draw(sampler, process, 1)
    among = sample(
        skewed, sampler, 4, 0, process=process, shape=(1,), dtype=torch.float64,
        mean=MEAN, batch_size=4,
    ).x  # fmt: skip
    return torch.allclose(among[:1], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "mistake",
    [
        "sigma_t for sigma_s",
        "factor 2 in the integral of beta",
        "g without sqrt(2 ln)",
        "noise on the last step",
        "a floored index",
        "a zero prior mean",
        "batch-mean norms",
    ],
)
def test_planted_mistakes_are_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above, on a library in which one published mistake has been made."""
    process: Process = VE(0.01, 2.0)
    sampler: Sampler = EulerMaruyama(60)

    def right() -> Law:
        return published(process, list(time_grid(process, 61, "uniform")), euler_maruyama, "")

    if mistake == "sigma_t for sigma_s":
        sampler = Ancestral(10, grid="uniform")
        times: list[float | None] = [*time_grid(process, 10, "uniform"), None]
        expected = published(process, times, ancestral, "posterior")
        real = grid.kernel_steps

        def wrong(*arguments: Any, **options: Any) -> list[Any]:
            steps = real(*arguments, **options)
            return [step._replace(sigma_s=step.sigma_t * 0.999) for step in steps[:-1]] + steps[-1:]

        monkeypatch.setattr(reverse_sde, "kernel_steps", wrong)
    elif mistake == "factor 2 in the integral of beta":
        process = VP()
        expected = right()
        monkeypatch.setattr(
            VP,
            "integral_of_beta",
            lambda self, t: t**2 * (self.beta_max - self.beta_min) / 4 + t * self.beta_min / 2,
        )
    elif mistake == "g without sqrt(2 ln)":
        expected = right()
        monkeypatch.setattr(VE, "g", lambda self, t: self.sigma(t))
    elif mistake == "noise on the last step":
        process = VP()
        sampler = ReverseDiffusion(10)
        expected = published(
            process, list(time_grid(process, 11, "uniform")), reverse_diffusion, ""
        )
        monkeypatch.setattr(reverse_sde.Linear, "_replace", lambda self, **_: self)
    elif mistake == "a floored index":
        # Sampler and model would be wrong alike, so a law cannot show it; the levels do.
        assert levels_come_back()
        monkeypatch.setattr(
            DDPM, "index", lambda self, t: (t * (self.levels - 1)).long().clamp(1, self.levels)
        )
        assert not levels_come_back()
        return
    elif mistake == "batch-mean norms":
        assert is_itself_among_outliers()
        monkeypatch.setattr(
            reverse_sde, "_squared_norms", lambda x: x.square().sum(1).mean().expand(len(x))
        )
        assert not is_itself_among_outliers()
        return
    else:
        assert isinstance(process, SDE)
        sampler = Heun(64, grid="log_snr")
        expected = edm_stochastic(process, time_grid(process, 64, "log_snr"), 0.0)
        monkeypatch.setattr(VE, "prior_keeps_mean", False)
        off = law(sampler, process, 2).mean - MEAN
        assert off == pytest.approx(-MEAN * STD / math.hypot(2.0, STD), rel=1e-2)
    with pytest.raises(AssertionError):
        assert_same(law(sampler, process, 64), expected)
    monkeypatch.undo()
    assert_same(law(sampler, process, 64), expected)
