"""The loss: its smallest possible value, its weightings, and where its times fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.loss import denoising_loss, denoising_weight, stratified_times
from scoremodel.oracles import GaussianMixture
from scoremodel.sde import SDE, VE, VP, SubVP

PROCESSES = [VE(0.01, 50.0), VP(), SubVP()]


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_the_exact_denoiser_reaches_the_smallest_possible_loss(sde: SDE) -> None:
    """O5: with weighting sigma2 it is alpha² s² / v per dimension, v = alpha² s² + sigma²."""
    std, count, dimension = 0.25, 4000, 8
    gaussian = GaussianMixture([[0.3] * dimension], [std], [1.0])
    draw = torch.Generator().manual_seed(0)
    for time in (0.05, 0.4, 0.9):
        t = torch.full((count,), time, dtype=torch.float64)
        x_0, _ = gaussian.sample(count, draw)
        noise = torch.randn(x_0.shape, dtype=torch.float64, generator=draw)
        weight = denoising_weight(t, sde, "sigma2", std)
        losses = denoising_loss(
            lambda x, t: gaussian.denoised(x, t, sde), x_0, t, noise, sde, weight
        )
        alpha2, sigma2 = float(sde.alpha(t[:1]) ** 2), float(sde.sigma(t[:1]) ** 2)
        smallest = alpha2 * std**2 / (alpha2 * std**2 + sigma2)
        error = float(losses.std()) / count**0.5
        assert abs(float(losses.mean()) - smallest) < 4 * error


def test_the_smallest_loss_of_ve_averaged_over_time_is_the_known_number() -> None:
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    variance = VE(0.01, 50.0).sigma(t) ** 2
    smallest = 0.25**2 / (0.25**2 + variance)
    assert float(torch.trapezoid(smallest, t)) == pytest.approx(0.3780192, abs=1e-7)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_weightings_are_the_score_s_weightings(sde: SDE) -> None:
    """W |D − x_0|² = λ |s + ε / sigma|² for λ = sigma² and g², with s the denoiser's score."""
    draw = torch.Generator().manual_seed(1)
    x_0, noise, guess = torch.randn(3, 6, 4, generator=draw, dtype=torch.float64)
    t = torch.rand(6, generator=draw, dtype=torch.float64).clamp(min=0.01)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    x_t = sde.perturb(x_0, t, noise)
    error = ((alpha * guess - x_t) / sigma**2 + noise / sigma).square().mean(1)
    for weighting, lam in (("sigma2", sde.sigma(t) ** 2), ("likelihood", sde.g(t) ** 2)):
        weight = denoising_weight(t, sde, weighting, 0.5)  # type: ignore[arg-type]
        loss = denoising_loss(lambda x, t: guess, x_0, t, noise, sde, weight)  # noqa: ARG005
        torch.testing.assert_close(loss, lam * error, rtol=1e-9, atol=1e-12)


def test_edm_weight_is_the_inverse_of_the_square_of_c_out() -> None:
    t = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    ratio, std = VE().ratio(t), 0.7
    c_out = std * ratio / (std**2 + ratio**2).sqrt()
    torch.testing.assert_close(
        denoising_weight(t, VE(), "edm", std) * c_out**2, torch.ones(20).double()
    )


def test_an_unknown_weighting_is_named() -> None:
    with pytest.raises(ValueError, match="'snr', allowed: sigma2, likelihood, edm"):
        denoising_weight(torch.ones(1), VP(), "snr", 0.5)  # type: ignore[arg-type]


def test_times_cover_every_stratum_and_each_is_uniform() -> None:
    sde = VP()
    draws = torch.stack(
        [stratified_times(64, sde, torch.Generator().manual_seed(seed)) for seed in range(400)]
    ).double()
    u = (draws - sde.t_min) / (1 - sde.t_min)
    gaps = u.sort(1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 64), rtol=0, atol=2e-6)
    first = u[:, 0]
    assert abs(float(first.mean()) - 0.5) < 4 * (1 / 12 / 400) ** 0.5


def test_levels_are_the_geometric_ladder_of_ncsn_each_as_often() -> None:
    sde = VE(0.01, 50.0)
    t = torch.cat(
        [stratified_times(70, sde, torch.Generator().manual_seed(s), 10) for s in range(200)]
    )
    levels, counts = t.unique(return_counts=True)
    assert len(levels) == 10
    ladder = np.geomspace(float(sde.sigma(levels[:1].double())), 50.0, 10)
    np.testing.assert_allclose(sde.sigma(levels.double()), ladder, rtol=1e-5)
    assert counts.tolist() == [1400] * 10


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_preconditioning_has_unit_input_and_the_untrained_model_is_exact_on_a_gaussian(
    sde: SDE,
) -> None:
    """O8: c_in² v = 1; and with F = 0, D is the exact denoised mean of N(m, s² I)."""
    mean, std = [0.3, -0.2], 0.6
    denoiser = Denoiser({"kind": "mlp"}, sde, (2,), mean, std).double()
    inputs = []
    denoiser.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    draw = torch.Generator().manual_seed(2)
    for time in (0.02, 0.5, 1.0):
        t = torch.full((20_000,), time, dtype=torch.float64)
        x_0 = torch.tensor(mean) + std * torch.randn(20_000, 2, generator=draw, dtype=torch.float64)
        noise = torch.randn(x_0.shape, generator=draw, dtype=torch.float64)
        x_t = sde.perturb(x_0, t, noise)
        denoised = denoiser(x_t, t)
        assert float(inputs[-1].var()) == pytest.approx(1, abs=4 * (2 / 40_000) ** 0.5)
        exact = GaussianMixture([mean], [std], [1.0]).denoised(x_t, t, sde)
        # the mean is stored in single precision
        torch.testing.assert_close(denoised, exact, rtol=0, atol=1e-6)
