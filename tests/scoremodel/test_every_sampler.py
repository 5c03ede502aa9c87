"""Every sampler × every process that defines it, on Gaussian data, and mistakes that must be caught.

On N(m, s²) every sampler whose coefficients do not look at the state is affine, so its result is
Gaussian with moments that follow by a recursion (O4). The recursions here are written from the
papers, in terms of score or noise, where the library works with the denoised mean.
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

from scoremodel.processes.chain import DDPM, NCSN
from scoremodel.oracles import GaussianMixture
from scoremodel.samplers import (
    DDIM,
    SAMPLERS,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    RungeKutta,
    Sampler,
    SDEDPMSolver,
    StochasticHeun,
    langevin,
    sample,
)
from scoremodel.samplers import base as base_module
from scoremodel.samplers.base import time_grid
from scoremodel.processes.sde import SDE, VE, VP, CosineVP, Process, SubVP

MEAN, STD = 0.4, 0.25
COUNT = 20_000
GAUSSIAN = GaussianMixture([[MEAN]], [STD], [1.0])
SDES = [VE(0.01, 50.0), VP(), SubVP(), CosineVP()]
CHAINS = [NCSN(0.01, 50.0, 200), DDPM()]


def draw(
    sampler: Sampler, process: Process, count: int = COUNT, oracle: GaussianMixture = GAUSSIAN
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
        batch_size=min(count, 5000),
    ).x


def values(process: Process, t: float) -> tuple[float, float, float]:
    """Return alpha, sigma and v, the variance of x_t."""
    at = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = float(process.alpha(at)), float(process.sigma(at))
    return alpha, sigma, alpha**2 * STD**2 + sigma**2


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


def annealed(process: Process, step_size: float, repeats: int, levels: int) -> tuple[float, float]:
    """Algorithm 1 of NCSN for alpha = 1, and the mean D at the smallest level."""
    mean, variance = MEAN, float(process.sigma(torch.ones((), dtype=torch.float64))) ** 2
    for t in time_grid(process, levels, "log_snr"):
        _, sigma, v = values(process, t)
        for _ in range(repeats):
            e = step_size * sigma**2
            mean += -e * (mean - MEAN) / v
            variance = (1 - e / v) ** 2 * variance + 2 * e
    shrink = STD**2 / v
    return MEAN + shrink * (mean - MEAN), shrink**2 * variance


def moments(
    process: Process, times: list[float | None], step: Callable[..., Affine], option: Any
) -> tuple[float, float]:
    mean = MEAN if process.prior_keeps_mean else 0.0
    variance = process.prior_std() ** 2
    for index, (t, s) in enumerate(pairwise(times)):
        a, b, c = step(process, t, s, option)
        last = index == len(times) - 2
        mean, variance = a * mean + b, a**2 * variance + (0.0 if last else c**2)
    return mean, variance


def agrees(x: Tensor, mean: float, variance: float) -> bool:
    """Whether the moments of x are those given, within four standard errors and nothing more."""
    count = len(x)
    return (
        abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / count) + 1e-12
        and abs(float(x.var()) / variance - 1) < 4 * math.sqrt(2 / count) + 1e-9
    )


@pytest.mark.parametrize("steps", [10, 60])
@pytest.mark.parametrize("process", [*SDES, *CHAINS], ids=str)
@pytest.mark.parametrize(
    ("sampler", "step", "option", "to_zero"),
    [
        (Ancestral, ancestral, "posterior", True),
        (Ancestral, ancestral, "kernel", True),
        (ReverseDiffusion, reverse_diffusion, "", False),
        (DDIM, ddim, 0.0, True),
        (DDIM, ddim, 0.5, True),
        (DDIM, ddim, 1.0, True),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_affine_samplers_have_the_moments_of_the_published_step(
    sampler: type[Sampler],
    step: Callable[..., Affine],
    option: Any,
    to_zero: bool,
    process: Process,
    steps: int,
) -> None:
    extra = {Ancestral: {"variance": option}, DDIM: {"eta": option}}.get(sampler, {})  # type: ignore[type-abstract]
    made = sampler(steps, grid="uniform", **extra)  # type: ignore[arg-type]
    times: list[float | None] = list(time_grid(process, steps + (not to_zero), "uniform"))
    expected = moments(process, times + [None] * to_zero, step, option)
    assert agrees(draw(made, process), *expected)


@pytest.mark.parametrize("process", [VE(0.01, 50.0), NCSN(0.01, 50.0, 200)], ids=str)
def test_annealed_langevin_has_the_moments_of_the_published_algorithm(process: Process) -> None:
    sampler = AnnealedLangevin(40, steps_per_level=3, step_size=0.2)
    expected = annealed(process, 0.2, 3, 40)
    assert agrees(draw(sampler, process), *expected)


def multistep(process: Process, times: list[float], noisy: bool) -> tuple[float, float]:
    """DPM-Solver++(2M) and its SDE form, in λ = ln(alpha / sigma) and the paper's r_i.

    The state is (x, D of the step before), jointly Gaussian: mean' = M mean + n, C' = M C Mᵀ + noise.
    """
    mean = np.array([MEAN if process.prior_keeps_mean else 0.0, 0.0])
    cov = np.diag([process.prior_std() ** 2, 0.0])
    h_before = 0.0
    for index, t in enumerate(times):
        alpha_t, sigma_t, v_t = values(process, t)
        k = alpha_t * STD**2 / v_t
        level = MEAN * (1 - alpha_t * k)
        if index == len(times) - 1:
            move, offset, noise = np.array([[k, 0], [k, 0]]), np.array([level, level]), 0.0
        else:
            alpha_s, sigma_s, _ = values(process, times[index + 1])
            h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
            weight = h / (2 * h_before) if h_before else 0.0
            if noisy:
                a, b = sigma_s / sigma_t * math.exp(-h), alpha_s * (1 - math.exp(-2 * h))
                noise = sigma_s**2 * (1 - math.exp(-2 * h))
            else:
                a, b, noise = sigma_s / sigma_t, -alpha_s * (math.exp(-h) - 1), 0.0
            move = np.array([[a + b * (1 + weight) * k, -b * weight], [k, 0]])
            offset = np.array([b * (1 + weight) * level, level])
            h_before = h
        mean = move @ mean + offset
        cov = move @ cov @ move.T + np.diag([noise, 0.0])
    return float(mean[0]), float(cov[0, 0])


def edm_stochastic(process: SDE, times: list[float], churn: float) -> tuple[float, float]:
    """Algorithm 2 of EDM for y = x / alpha, where D(y, r) − m = s² (y − m) / (s² + r²)."""
    alpha, _, _ = values(process, 1.0)
    mean = (MEAN if process.prior_keeps_mean else 0.0) / alpha
    variance = (process.prior_std() / alpha) ** 2
    levels = [values(process, t)[1] / values(process, t)[0] for t in times] + [0.0]
    for r_t, r_s in pairwise(levels):
        gamma = min(churn / len(times), math.sqrt(2) - 1) if 0.05 <= r_t <= 50 else 0.0
        r_hat = min(r_t * (1 + gamma), levels[0])
        variance += 1.003**2 * (r_hat**2 - r_t**2)
        slope = r_hat / (STD**2 + r_hat**2)
        factor = 1 + (r_s - r_hat) * slope
        if r_s:
            factor = 1 + (r_s - r_hat) / 2 * (slope + r_s / (STD**2 + r_s**2) * factor)
        mean, variance = MEAN + factor * (mean - MEAN), factor**2 * variance
    return mean, variance


@pytest.mark.parametrize("steps", [6, 40])
@pytest.mark.parametrize("process", SDES, ids=str)
@pytest.mark.parametrize("name", ["dpm_solver", "sde_dpm_solver", "heun", "stochastic_heun"])
def test_second_order_samplers_have_the_moments_of_the_published_step(
    name: str, process: SDE, steps: int
) -> None:
    sampler = SAMPLERS[name](steps, grid="log_snr")
    times = time_grid(process, steps, "log_snr")
    if name.endswith("heun"):
        expected = edm_stochastic(process, times, 40.0 if name == "stochastic_heun" else 0.0)
    else:
        expected = multistep(process, times, name == "sde_dpm_solver")
    assert agrees(draw(sampler, process), *expected)


FINE: dict[str, Sampler] = {
    "annealed_langevin": AnnealedLangevin(60, steps_per_level=30, step_size=0.05),
    "ancestral": Ancestral(200, grid="log_snr"),
    "ddim": DDIM(150, grid="edm", eta=0.3),
    "dpm_solver": DPMSolver(60),
    "euler": Euler(400, grid="log_snr"),
    "euler_maruyama": EulerMaruyama(800),
    "heun": Heun(60),
    "langevin": Langevin(200, step_size=0.004, ratio=0.05, start_std=1.0),
    "predictor_corrector": PredictorCorrector(150, grid="log_snr", snr=0.05),
    "reverse_diffusion": ReverseDiffusion(400, grid="log_snr"),
    "runge_kutta": RungeKutta(),
    "sde_dpm_solver": SDEDPMSolver(100, grid="log_snr"),
    "stochastic_heun": StochasticHeun(80, s_churn=20.0),
}


@pytest.mark.parametrize("process", [*SDES, *CHAINS], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n == "annealed_langevin"))
        for n in sorted(SAMPLERS)
    ],
)
def test_every_sampler_reaches_the_data_on_every_process_that_defines_it(
    name: str, process: Process
) -> None:
    """With many steps the data's own moments come out, to 4 % and Monte-Carlo error."""
    sampler = FINE[name]
    if not isinstance(process, SDE):
        if name in ("euler_maruyama", "stochastic_heun", "runge_kutta"):
            with pytest.raises(ValueError, match=f"{name} needs a process with drift"):
                sampler.plan(process)
            return
        sampler = dataclasses.replace(sampler, grid="uniform", steps=199)
    # The corrector's step rests on norms, which mean something in many dimensions only.
    dimension = 64 if name == "predictor_corrector" else 1
    oracle = GaussianMixture([[MEAN] * dimension], [STD], [1.0])
    count = {"runge_kutta": 16, "predictor_corrector": 100}.get(name, 4000)
    x = draw(sampler, process, count, oracle)
    assert abs(float(x.mean()) - MEAN) < 0.01 + 4 * STD / math.sqrt(x.numel())
    assert abs(float(x.std()) / STD - 1) < 0.04 + 4 / math.sqrt(2 * x.numel())


def test_all_registered_samplers_are_tested() -> None:
    assert set(FINE) == set(SAMPLERS)


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
def test_langevin_has_its_exact_stationary_variance(temperature: float) -> None:
    """O7: 2 e T / (1 − (1 − e/v)²), neither v nor v T."""
    v, e, chains = 0.25**2, 0.02, 20_000
    start = torch.full((chains, 1), MEAN, dtype=torch.float64)
    x = langevin(lambda x: -(x - MEAN) / v, start, e, 60, 0, temperature=temperature)
    variance = 2 * e * temperature / (1 - (1 - e / v) ** 2)
    assert abs(variance / (v * temperature) - 1) > 8 * math.sqrt(2 / chains)
    assert agrees(x, MEAN, variance)


@pytest.mark.parametrize("process", [VE(0.01, 50.0), VP(), DDPM()], ids=str)
def test_langevin_of_a_model_stays_at_its_level_s_own_density(process: Process) -> None:
    """At r its stationary law is N(m, 2 e / (1 − (1 − e/v)²)), v = s² + r²; then D shrinks it by s²/v."""
    e, r = 0.05, 0.3
    x = draw(Langevin(100, step_size=e, ratio=r, start_std=0.5), process)
    t = process.t_of_ratio(torch.tensor(r, dtype=torch.float64))
    v = STD**2 + float(process.ratio(t)) ** 2
    variance = 2 * e / (1 - (1 - e / v) ** 2) * (STD**2 / v) ** 2
    assert agrees(x, MEAN, variance)


def test_langevin_s_steps_that_diverge_are_refused() -> None:
    with pytest.raises(ValueError, match=r"diverges unless step_size < 0.0002\d*, got 0.001"):
        Langevin(5, step_size=1e-3).plan(VE(0.01, 50.0))


def test_langevin_chain_i_is_a_function_of_seed_and_i() -> None:
    score = lambda x: -x  # noqa: E731
    start = torch.zeros(10, 2)
    whole = langevin(score, start, 0.1, 5, 3)
    assert torch.equal(langevin(score, start[4:], 0.1, 5, 3, start=4), whole[4:])
    with pytest.raises(ValueError, match="step_size > 0"):
        langevin(score, start, 0.0, 5, 3)


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

    alone = draw(PredictorCorrector(5), process, 1)
    among = sample(
        skewed, PredictorCorrector(5), 4, 0, process=process, shape=(1,), dtype=torch.float64,
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

    def right() -> tuple[float, float]:
        mean, variance = MEAN if process.prior_keeps_mean else 0.0, process.prior_std() ** 2
        times = time_grid(process, 61, "uniform")
        assert isinstance(process, SDE)
        for t, s in pairwise(times):
            alpha, _, v = values(process, t)
            at = torch.tensor(t, dtype=torch.float64)
            f, g2, delta = float(process.f(at)), float(process.g(at)) ** 2, t - s
            a = 1 - delta * f - delta * g2 / v
            mean = a * mean + delta * g2 * alpha * MEAN / v
            variance = a**2 * variance + (delta * g2 if s != times[-1] else 0.0)
        return mean, variance

    if mistake == "sigma_t for sigma_s":
        sampler = Ancestral(10, grid="uniform")
        times: list[float | None] = [*time_grid(process, 10, "uniform"), None]
        expected = moments(process, times, ancestral, "posterior")
        real = base_module.kernel_steps

        def wrong(*arguments: Any, **options: Any) -> list[Any]:
            steps = real(*arguments, **options)
            return [step._replace(sigma_s=step.sigma_t * 0.999) for step in steps[:-1]] + steps[-1:]

        monkeypatch.setattr("scoremodel.samplers.reverse_sde.kernel_steps", wrong)
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
        times = list(time_grid(process, 11, "uniform"))
        expected = moments(process, times, reverse_diffusion, "")
        from scoremodel.samplers import reverse_sde

        monkeypatch.setattr(reverse_sde.Linear, "_replace", lambda self, **_: self)
    elif mistake == "a floored index":
        # Sampler and model would be wrong alike, so moments cannot show it; the levels do.
        assert levels_come_back()
        monkeypatch.setattr(
            DDPM, "index", lambda self, t: (t * (self.levels - 1)).long().clamp(1, self.levels)
        )
        assert not levels_come_back()
        return
    elif mistake == "batch-mean norms":
        from scoremodel.samplers import reverse_sde

        assert is_itself_among_outliers()
        monkeypatch.setattr(
            reverse_sde, "_squared_norms", lambda x: x.square().sum(1).mean().expand(len(x))
        )
        assert not is_itself_among_outliers()
        return
    else:
        sampler = Heun(64)
        expected = (MEAN, values(process, process.t_min)[2])
        monkeypatch.setattr(VE, "prior_keeps_mean", False)
        assert not agrees(draw(sampler, process), *expected)
        x = draw(sampler, process)
        off = MEAN * STD / math.hypot(2.0, STD)
        assert float(x.mean()) - MEAN == pytest.approx(-off, abs=4 * STD / math.sqrt(COUNT))
        return
    assert not agrees(draw(sampler, process), *expected)
    monkeypatch.undo()
    assert agrees(draw(sampler, process), *expected)
