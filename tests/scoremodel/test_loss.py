"""The loss: its smallest possible value, its weightings, and where its times fall."""

from __future__ import annotations

import pytest
import torch

from scoremodel.oracles import GaussianMixture
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.training.loss import denoising_loss, denoising_weight

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
        loss = denoising_loss(lambda x, t: guess, x_0, t, noise, sde, weight)
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


def test_a_chain_has_no_likelihood_weighting() -> None:
    with pytest.raises(ValueError, match="'likelihood' needs g\\(t\\), which ddpm has not"):
        denoising_weight(torch.ones(1), DDPM(), "likelihood", 0.5)


def test_the_edm_weight_of_much_noise_is_that_of_the_data_alone() -> None:
    weight = denoising_weight(torch.ones(1), VP(0.1, 300.0), "edm", 0.5)
    torch.testing.assert_close(weight, torch.tensor([4.0]))
