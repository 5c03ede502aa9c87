"""The chains: published rules, their own recursions, and their limits (O11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scoremodel.processes.base import process_from_config
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN, langevin_step_size, largest_distance, ncsnv2_levels
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.grid import time_grid


@pytest.mark.parametrize(("dimension", "levels"), [(784, 109), (1024, 125), (3072, 219)])
def test_ncsnv2_rule_gives_the_known_numbers_of_levels(dimension: int, levels: int) -> None:
    assert ncsnv2_levels(0.01, 50.0, dimension) == levels


def test_largest_distance_is_the_largest_of_all_pairs() -> None:
    x = torch.randn(300, 2, 3, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(1).double()
    every = (flat[:, None] - flat[None]).norm(dim=2).max()
    assert largest_distance(x, chunk=64) == pytest.approx(float(every), rel=1e-5)
    ladder = NCSN.from_data(x)
    assert ladder.sigma_max == pytest.approx(float(every), rel=1e-5)
    assert ladder.levels == ncsnv2_levels(0.02, ladder.sigma_max, 6)


def test_langevin_step_size_keeps_the_variance_from_level_to_level() -> None:
    """Proposition 3, by the recursion itself: v ← (1 − ε/σ²)² v + 2 ε from γ² σ² back to σ²."""
    gamma, steps, sigma = 1.1, 5, 0.01
    epsilon = langevin_step_size(sigma, gamma, steps)
    variance = (gamma * sigma) ** 2
    for _ in range(steps):
        variance = (1 - epsilon / sigma**2) ** 2 * variance + 2 * epsilon
    reached = {
        e: ((gamma * sigma) ** 2 - 2 * e / (1 - (1 - e / sigma**2) ** 2))
        * (1 - e / sigma**2) ** (2 * steps)
        + 2 * e / (1 - (1 - e / sigma**2) ** 2)
        for e in (epsilon * 0.9, epsilon, epsilon * 1.1)
    }
    assert reached[epsilon] == pytest.approx(variance, rel=1e-9)
    gaps = [abs(value / sigma**2 - 1) for value in reached.values()]
    assert gaps[1] == min(gaps)


def test_ddpm_s_kernel_is_its_chain_run_step_by_step() -> None:
    chain = DDPM(levels=1000)
    mean, variance = 1.0, 0.0
    alphas, sigmas = [], []
    for beta in np.linspace(1e-4, 0.02, 1000):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        alphas.append(mean)
        sigmas.append(np.sqrt(variance))
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    np.testing.assert_allclose(chain.alpha(t), alphas, rtol=1e-10)
    np.testing.assert_allclose(chain.sigma(t), sigmas, rtol=1e-10)
    # the same levels come back in single precision, where truncation would miss some
    assert torch.equal(chain.index(t.float()), torch.arange(1, 1001))


def test_ddpm_converges_to_vp_at_rate_one_over_n() -> None:
    """O11, with β_i = β̄((i − 1)/(N − 1)) / N."""
    sizes, errors = [250, 500, 1000, 2000], []
    for n in sizes:
        chain = DDPM(0.1 / n, 20 / n, n)
        t = chain.uniform_grid(n)
        gap = (chain.alpha(t) - VP().alpha(t)).abs().max() + (
            chain.sigma(t) - VP().sigma(t)
        ).abs().max()
        errors.append(float(gap))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.1)


def test_ncsn_s_chain_has_ve_s_kernel_and_its_g_form_converges_at_rate_one_over_n() -> None:
    """O11: Σ (σ_i² − σ_{i−1}²) + σ_0² is exact at every N; Σ g² Δt is off by O(1/N)."""
    ve, sizes, errors = VE(0.01, 50.0), [200, 400, 800, 1600], []
    for n in sizes:
        chain = NCSN(0.01, 50.0, n)
        sigma = chain.sigma(chain.uniform_grid(n)).flip(0)
        summed = sigma[0] ** 2 + (sigma[1:] ** 2 - sigma[:-1] ** 2).sum()
        assert float(summed) == pytest.approx(50.0**2, rel=1e-12)
        t = torch.arange(n, dtype=torch.float64) / n
        euler = ve.sigma_min**2 + (ve.g(t) ** 2 / n).sum()
        errors.append(abs(float(euler) - 50.0**2))
        u = torch.linspace(0, 1, n, dtype=torch.float64)
        torch.testing.assert_close(sigma, ve.sigma(u), rtol=1e-10, atol=0)
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("chain", [NCSN(), DDPM()], ids=str)
def test_a_chain_s_grid_are_its_levels_and_times_are_equally_likely(chain: NCSN | DDPM) -> None:
    n = chain.levels
    assert time_grid(chain, n, "uniform") == [i / n for i in range(n, 0, -1)]
    u = (torch.arange(4 * n, dtype=torch.float64) + 0.5) / (4 * n)
    found, counts = chain.time_of_quantile(u).unique(return_counts=True)
    assert len(found) == n
    assert counts.unique().tolist() == [4]
    torch.testing.assert_close(chain.t_of_ratio(chain.ratio(found)), found, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=f"has {n} levels"):
        time_grid(chain, n + 1, "uniform")


@pytest.mark.parametrize("grid", ["log_snr", "edm"])
@pytest.mark.parametrize("chain", [DDPM(), NCSN(0.02, 20.0, 60), DDPM(levels=30)], ids=str)
@pytest.mark.parametrize("points", [2, 17, 30])
def test_a_chain_s_grid_takes_the_nearest_levels_none_twice(
    chain: NCSN | DDPM, grid: str, points: int
) -> None:
    found = chain.index(torch.tensor(time_grid(chain, points, grid), dtype=torch.float64))  # type: ignore[arg-type]
    assert found[0] == chain.levels
    assert found[-1] == 1
    assert bool((found.diff() < 0).all())


def test_levels_that_are_apart_are_the_nearest_and_crowded_ones_move_up() -> None:
    chain = NCSN(0.02, 20.0, 60)
    assert time_grid(chain, 60, "log_snr") == time_grid(chain, 60, "uniform")
    times = torch.tensor([1.0, 0.5, 0.25, 0.02, 0.018, 0.017], dtype=torch.float64)
    assert chain.index(chain.distinct(times)).tolist() == [60, 30, 15, 3, 2, 1]
    crowded_at_the_top = torch.tensor([1.0, 0.999, 0.998, 0.1], dtype=torch.float64)
    assert chain.index(chain.distinct(crowded_at_the_top)).tolist() == [60, 59, 58, 6]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"kind": "ncsn", "sigma_min": 3.0, "sigma_max": 1.0},
            r"ncsn: sigma_max: 1.0 is .* sigma_min \(3\)",
        ),
        (
            {"kind": "ddpm", "beta_first": 0.1, "beta_last": 1.5},
            "ddpm: beta_last: 1.5 is not allowed",
        ),
        ({"kind": "ddpm", "levels": 1}, "ddpm: levels: 1 is not allowed"),
    ],
)
def test_wrong_chains_are_named(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        process_from_config(config)
