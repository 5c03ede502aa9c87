"""Every process: published check values, its kernel against its drift and diffusion, its inverse."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

import scoremodel.processes
from scoremodel.processes.base import process_from_config
from scoremodel.processes.cosine import CosineVP
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP

PROCESSES = [VE(), VE(0.01, 50.0), VP(), VP(0.2, 12.0), SubVP(), CosineVP()]


def at(*times: float) -> torch.Tensor:
    return torch.tensor(times, dtype=torch.float64)


def test_ve_has_the_check_values_of_the_paper_constants() -> None:
    ve = VE(0.01, 50.0)
    torch.testing.assert_close(
        ve.sigma(at(1e-5, 0.5)), at(0.010000852, 0.70710678), rtol=1e-7, atol=0
    )
    torch.testing.assert_close(ve.g(at(0.5, 1.0)), at(2.9184231, 206.36367), rtol=1e-7, atol=0)


def test_vp_has_the_check_values_of_the_paper_constants() -> None:
    t = at(1e-5, 1e-3, 0.5, 1.0)
    alpha = at(0.99999950, 0.99994503, 0.28118288, 0.00657159)
    sigma = at(0.00100050, 0.01048542, 0.95965420, 0.99997841)
    torch.testing.assert_close(VP().alpha(t), alpha, rtol=0, atol=6e-9)
    torch.testing.assert_close(VP().sigma(t), sigma, rtol=0, atol=6e-9)


def test_vp_keeps_its_digits_in_single_precision_near_zero() -> None:
    t = torch.tensor([1e-5])
    exact = VP().sigma(t.double())
    torch.testing.assert_close(VP().sigma(t).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_kernel_solves_the_moment_equations_of_drift_and_diffusion(sde: SDE) -> None:
    """O2: dm/dt = f m and dV/dt = 2 f V + g², integrated by Runge–Kutta, give alpha and sigma²."""
    start, end, steps = 0.01, 1.0, 2000
    h = (end - start) / steps
    nodes = torch.linspace(start, end, 2 * steps + 1, dtype=torch.float64)
    drift, diffusion = sde.f(nodes).tolist(), sde.g(nodes).tolist()
    m, v = float(sde.alpha(at(start))), float(sde.sigma(at(start))) ** 2

    def slope(node: int, m: float, v: float) -> tuple[float, float]:
        f, g = drift[node], diffusion[node]
        return f * m, 2 * f * v + g**2

    for node in range(0, 2 * steps, 2):
        m1, v1 = slope(node, m, v)
        m2, v2 = slope(node + 1, m + h / 2 * m1, v + h / 2 * v1)
        m3, v3 = slope(node + 1, m + h / 2 * m2, v + h / 2 * v2)
        m4, v4 = slope(node + 2, m + h * m3, v + h * v3)
        m, v = m + h / 6 * (m1 + 2 * m2 + 2 * m3 + m4), v + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
    state = at(m, v)[:, None]
    torch.testing.assert_close(state[0], sde.alpha(at(end)), rtol=1e-8, atol=0)
    torch.testing.assert_close(state[1], sde.sigma(at(end)) ** 2, rtol=1e-8, atol=0)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_drift_and_diffusion_that_follow_from_the_kernel_are_the_closed_forms(sde: SDE) -> None:
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(SDE.f(sde, t), sde.f(t), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(SDE.g(sde, t), sde.g(t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_t_of_ratio_inverts_ratio(sde: SDE) -> None:
    t = torch.tensor([sde.t_min, 0.01, 0.3, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(sde.t_of_ratio(sde.ratio(t)), t, rtol=1e-9, atol=1e-12)


def test_perturb_has_the_kernel_s_moments() -> None:
    draw = torch.Generator().manual_seed(0)
    count = 200_000
    noise = torch.randn(count, 1, generator=draw, dtype=torch.float64)
    x_t = VP().perturb(torch.full((count, 1), 2.0), at(0.2).expand(count), noise)
    alpha, sigma = VP().alpha(at(0.2)).item(), VP().sigma(at(0.2)).item()
    assert abs(x_t.mean().item() - 2 * alpha) < 4 * sigma / count**0.5
    assert abs(x_t.var().item() / sigma**2 - 1) < 4 * (2 / count) ** 0.5


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"kind": "ve", "sigma_min": 5.0, "sigma_max": 1.0},
            r"ve: sigma_max: 1.0 is .* sigma_min \(5\)",
        ),
        (
            {"kind": "vp", "beta_min": -1.0, "beta_max": 1.0},
            "vp: beta_min: -1.0 is not allowed",
        ),
        ({"kind": "vee"}, "unknown process 'vee', allowed: ddpm, ncsn, subvp, ve, vp, vp_cosine"),
        ({"kind": "vp", "t_min": 0.0}, "vp: t_min: 0.0 is not allowed"),
        (
            {"kind": "vp", "sigma_min": 0.1},
            "process 'vp': .*unexpected keyword argument 'sigma_min'",
        ),
        ({"kind": "vp", "beta_max": 2000.0}, "leaves so little of the data at t = 1"),
        ({"kind": "ddpm", "beta_last": 0.4}, "leaves so little of the data at t = 1"),
    ],
)
def test_wrong_parameters_are_named(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        process_from_config(config)


def by_coefficients(sde: SDE) -> SDE:
    """The same process, told f and g only."""

    class ByCoefficients(SDE):
        def f(self, t: torch.Tensor) -> torch.Tensor:
            return sde.f(t)

        def g(self, t: torch.Tensor) -> torch.Tensor:
            return sde.g(t)

    return ByCoefficients(t_min=1e-9)


# CosineVP's own g is a derivative, which loses digits towards 0.
@pytest.mark.parametrize(
    ("sde", "first", "error"),
    [(VE(0.01, 50.0), -9, 1e-12), (VP(), -9, 1e-12), (SubVP(), -9, 1e-12), (CosineVP(), -5, 1e-10)],
    ids=str,
)
def test_a_process_given_by_drift_and_diffusion_has_the_kernel_of_its_closed_form(
    sde: SDE, first: int, error: float
) -> None:
    """And its inverse; VE's own sigma starts at sigma_min, from data without noise it does not."""
    same = by_coefficients(sde)
    t = torch.cat([torch.logspace(first, 0, 500, dtype=torch.float64), torch.rand(500).double()])
    sigma = sde.sigma(t)
    if isinstance(sde, VE):
        sigma = sde.sigma_min * torch.expm1(2 * t * math.log(5000)).sqrt()
    torch.testing.assert_close(same.alpha(t), sde.alpha(t), rtol=error, atol=0)
    torch.testing.assert_close(same.sigma(t), sigma, rtol=error, atol=0)
    torch.testing.assert_close(same.t_of_ratio(sigma / sde.alpha(t)), t, rtol=error, atol=0)


def test_a_rate_that_jumps_and_stands_still_is_integrated_and_inverted() -> None:
    """g² = 1 to 0.3, 0 to 0.6, 100 after: sigma² = 0.3 in between, and the times of it are there."""

    class Steps(SDE):
        def f(self, t: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(t)

        def g(self, t: torch.Tensor) -> torch.Tensor:
            return torch.where(t < 0.3, 1.0, torch.where(t < 0.6, 0.0, 10.0)).to(t)

    t = at(0.1, 0.45, 0.7, 1.0)
    variance = at(0.1, 0.3, 10.3, 40.3)
    torch.testing.assert_close(Steps().sigma(t) ** 2, variance, rtol=1e-6, atol=0)
    found = Steps().t_of_ratio(variance.sqrt())
    torch.testing.assert_close(found[[0, 2, 3]], t[[0, 2, 3]], rtol=1e-6, atol=0)
    assert 0.29 < float(found[1]) < 0.61
    # made in inference mode, a table serves training
    later = Steps()
    with torch.inference_mode():
        later.sigma(t)
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    (weight * later.sigma(t)).sum().backward()
    assert torch.equal(weight.grad, Steps().sigma(t))  # type: ignore[arg-type]


def test_a_process_that_gives_neither_pair_is_refused() -> None:
    with pytest.raises(TypeError, match="must define alpha and sigma, or f and g"):

        class Half(SDE):
            """Only a drift."""

            def f(self, t: torch.Tensor) -> torch.Tensor:
                return -t


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 50.0), CosineVP()], ids=str)
def test_reverse_drift_and_probability_flow_are_the_published_formulas(sde: SDE) -> None:
    x, score = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    f, g2 = sde.f(t)[:, None], sde.g(t)[:, None] ** 2
    torch.testing.assert_close(sde.reverse_drift(x, t, score), f * x - g2 * score)
    torch.testing.assert_close(sde.probability_flow(x, t, score), f * x - g2 * score / 2)


def test_the_examples_of_the_module_s_page_are_true() -> None:
    result = doctest.testmod(scoremodel.processes)
    assert result.attempted >= 3
    assert result.failed == 0
