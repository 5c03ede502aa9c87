"""Training times: their distributions by quantile, and factors that leave the expected loss alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scoremodel.processes.cosine import CosineVP
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.training.loss import denoising_weight
from scoremodel.training.times.importance import Importance
from scoremodel.training.times.log_normal import LogNormal
from scoremodel.training.times.uniform import Stratified, Uniform

SDES = [VE(0.01, 50.0), VP(), SubVP(), CosineVP()]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_stratified_times_cover_every_stratum_and_each_is_uniform() -> None:
    sde = VP()
    times = torch.stack([Stratified().draw(64, sde, draw(seed))[0] for seed in range(400)])
    u = (times.double() - sde.t_min) / (1 - sde.t_min)
    gaps = u.sort(1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 64), rtol=0, atol=2e-6)
    assert abs(float(u[:, 0].mean()) - 0.5) < 4 * (1 / 12 / 400) ** 0.5


def test_uniform_times_are_independent_and_uniform() -> None:
    """Kolmogorov–Smirnov at the 0.1 % level, which stratified times would pass too well."""
    count = 4000
    t, factor = Uniform().draw(count, VP(), draw(0))
    u = ((t.double() - 1e-3) / (1 - 1e-3)).sort().values
    distance = float((u - (torch.arange(count) + 0.5) / count).abs().max()) * math.sqrt(count)
    assert 0.3 < distance < 1.95
    assert factor.unique().tolist() == [1.0]


@pytest.mark.parametrize("chain", [NCSN(0.01, 50.0, 10), DDPM(levels=10)], ids=str)
def test_the_levels_of_a_chain_come_equally_often(chain: NCSN | DDPM) -> None:
    t = torch.cat([Stratified().draw(70, chain, draw(seed))[0] for seed in range(200)])
    assert chain.index(t).bincount(minlength=11).tolist() == [0] + [1400] * 10


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_log_normal_times_have_edm_s_quantiles(sde: SDE) -> None:
    count = 2000
    t, factor = LogNormal().draw(count, sde, draw(3))
    found = sde.ratio(t.double()).log().sort().values
    expected = -1.2 + 1.2 * torch.special.ndtri((torch.arange(count) + 0.5).double() / count)
    low, high = sde.ratio(torch.tensor([sde.t_min, 1.0], dtype=torch.float64)).log().tolist()
    inside = (
        (expected > low + 0.5) & (expected < high - 0.5) & (found.diff(append=found[-1:]) < 0.05)
    )
    assert int(inside.sum()) > 0.8 * count
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=0.03)
    assert factor.unique().tolist() == [1.0]


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_importance_times_have_density_g_squared_over_sigma_squared(sde: SDE) -> None:
    """Their distribution function is the normalised integral of g²/sigma², by the trapezoidal rule."""
    count = 4000
    t = Importance().draw(count, sde, draw(1))[0].double().sort().values
    nodes = torch.logspace(math.log10(sde.t_min), 0, 40_001, dtype=torch.float64)
    rate = (sde.g(nodes) / sde.sigma(nodes)) ** 2
    integral = torch.cumulative_trapezoid(rate, nodes)
    expected = np.interp(t.numpy(), nodes[1:].numpy(), (integral / integral[-1]).numpy())
    np.testing.assert_allclose(expected, (np.arange(count) + 0.5) / count, atol=2e-3)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_importance_factors_keep_the_expected_likelihood_loss_and_cut_its_variance(
    sde: SDE,
) -> None:
    """For an error of the noise that is constant, the loss is g²/sigma² alone."""
    count = 20_000

    def losses(kind: Uniform | Importance) -> torch.Tensor:
        t, factor = kind.draw(count, sde, draw(2))
        t = t.double()
        weight = denoising_weight(t, sde, "likelihood", 0.5)
        return factor.double() * weight * sde.ratio(t) ** 2

    plain, importance = losses(Uniform()), losses(Importance())
    error = float(plain.std()) / math.sqrt(count)
    assert abs(float(plain.mean() - importance.mean())) < 4 * error + 1e-3 * float(plain.mean())
    assert float(importance.std()) < 1e-3 * float(importance.mean())


def test_times_that_a_process_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="'importance' need g\\(t\\), which ncsn has not"):
        Importance().draw(4, NCSN(), draw(0))
    with pytest.raises(ValueError, match="log_normal: std: -1 is not allowed"):
        LogNormal(std=-1)
