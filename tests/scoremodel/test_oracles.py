"""O1: the mixture's score is the gradient of its log-density, and a Gaussian's the closed form."""

from __future__ import annotations

import pytest
import torch

from scoremodel.oracles import GaussianMixture
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP

MIXTURE = GaussianMixture([[-2.0, 1.0], [1.5, 0.0], [0.0, -3.0]], [0.3, 0.5, 0.1], [0.6, 0.3, 0.1])


@pytest.mark.parametrize("sde", [VE(0.01, 50.0), VP(), SubVP()], ids=str)
def test_mixture_score_is_the_gradient_of_its_log_density(sde: SDE) -> None:
    draw = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(64, 2, generator=draw, dtype=torch.float64)
    t = torch.rand(64, generator=draw, dtype=torch.float64).clamp(min=0.05)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(MIXTURE.log_prob(x, t, sde).sum(), x)
    torch.testing.assert_close(MIXTURE.score(x, t, sde), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sde", [VE(0.01, 50.0), VP(), SubVP()], ids=str)
def test_gaussian_score_is_the_closed_form(sde: SDE) -> None:
    mean, std = torch.tensor([0.7, -0.2], dtype=torch.float64), 0.25
    gaussian = GaussianMixture([mean.tolist()], [std], [1.0])
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(32, 2, generator=draw, dtype=torch.float64)
    t = torch.linspace(0.01, 1, 32, dtype=torch.float64)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    exact = -(x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    torch.testing.assert_close(gaussian.score(x, t, sde), exact, rtol=1e-10, atol=1e-12)


def test_log_prob_of_noise_free_limit_integrates_to_one() -> None:
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    density = MIXTURE.log_prob(x, torch.full((len(x),), 0.3, dtype=torch.float64), VP()).exp()
    assert float(density.sum() * 0.02**2) == pytest.approx(1, abs=1e-6)


def test_samples_come_with_the_weights_of_their_components() -> None:
    _, component = MIXTURE.sample(20_000, torch.Generator().manual_seed(3))
    for index, weight in enumerate([0.6, 0.3, 0.1]):
        share = float((component == index).double().mean())
        assert abs(share - weight) < 4 * (weight * (1 - weight) / 20_000) ** 0.5
