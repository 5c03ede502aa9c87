"""O6: the probability flow's log-likelihood, bits per dimension, and latents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.flow import flow
from scoremodel.latents import decode, encode, interpolate
from scoremodel.likelihood import bits_per_dim, dequantise, log_likelihood
from scoremodel.oracles import Gaussian, GaussianMixture
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP

MEAN, STD = [0.7, -0.2, 0.1], 0.25
GAUSSIAN = GaussianMixture([MEAN], [STD], [1.0])
SDES = [VE(0.01, 50.0), VP(), SubVP()]


def points(count: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.tensor(MEAN, dtype=torch.float64) + STD * torch.randn(
        count, 3, generator=draw, dtype=torch.float64
    )


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("probes", [None, 1], ids=["exact", "one probe"])
def test_gaussian_data_have_the_gaussian_s_density(sde: SDE, probes: int | None) -> None:
    """O6: a probe is exact here too; the prior is the flow's end up to 1e-4 (sigma_max² + s²)."""
    x = points()
    found = log_likelihood(
        lambda x, t: GAUSSIAN.denoised(x, t, sde),
        x,
        probes=probes,
        process=sde,
        mean=torch.tensor(MEAN),
        rtol=1e-8,
        atol=1e-8,
    )
    first = torch.full((len(x),), sde.t_min, dtype=torch.float64)
    # The mean's image at t = 1 is alpha_1 m, where the prior of VP and sub-VP has zero.
    exact = GAUSSIAN.log_prob(x, first, sde)
    assert float((found.log_prob - exact).abs().max()) < 0.02
    end = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(sde.alpha(end)), float(sde.sigma(end))
    centre = torch.tensor(MEAN, dtype=torch.float64)
    v_end, v_first = (
        float(sde.alpha(t[:1]) ** 2 * STD**2 + sde.sigma(t[:1]) ** 2) for t in (end, first)
    )
    latent = alpha * centre + (x - sde.alpha(first)[:, None] * centre) * math.sqrt(v_end / v_first)
    prior = Gaussian(
        centre if sde.prior_keeps_mean else 0 * centre,
        sde.prior_std() ** 2 * torch.eye(3, dtype=torch.float64),
    )
    by_hand = prior.log_prob(latent) + 1.5 * math.log(v_end / v_first)
    assert float((found.log_prob - by_hand).abs().max()) < 1e-5
    assert sigma == pytest.approx(sde.prior_std(), rel=1e-3)


def test_a_mixture_s_likelihood_is_its_log_density() -> None:
    mixture = GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.2], [0.8, 0.2])
    sde = VE(0.01, 200.0)
    x, _ = mixture.sample(64, torch.Generator().manual_seed(1))
    t = torch.full((64,), sde.t_min, dtype=torch.float64)
    mean = torch.tensor([-0.36, -0.36], dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return mixture.denoised(x, t, sde)

    exact = mixture.log_prob(x, t, sde)
    found = log_likelihood(denoise, x, process=sde, mean=mean, rtol=1e-7, atol=1e-7)
    assert float((found.log_prob - exact).abs().max()) < 1e-3
    assert float(found.std_error.max()) == 0.0
    # Hutchinson's mean over points is the exact mean within the standard error it states.
    probed = log_likelihood(denoise, x, probes=8, process=sde, mean=mean)
    error = float(probed.std_error.square().mean().sqrt()) / math.sqrt(len(x))
    assert 0 < abs(float((probed.log_prob - exact).mean())) < 4 * error
    standardised = (probed.log_prob - exact) / probed.std_error
    assert 0.6 < float(standardised.std()) < 2.0


@pytest.mark.parametrize("levels", [17, 256])
def test_uniform_data_take_the_logarithm_of_the_levels_in_bits(levels: int) -> None:
    """Uniform 8-bit data score 8 bits a dimension, 17 levels log2 17."""
    width = 2 * levels / (levels - 1)  # of all bins together
    log_prob = torch.full((5,), -12 * math.log(width))
    assert bits_per_dim(log_prob, 12, levels).tolist() == pytest.approx([math.log2(levels)] * 5)


def test_dequantised_levels_fill_their_bins_and_know_their_level() -> None:
    pixels = torch.arange(17, dtype=torch.uint8).repeat(400, 1)
    x = dequantise(pixels, 17, seed=3)
    back = (x + 1) * 8
    assert torch.equal(back.round().to(torch.uint8), pixels)
    inside = (back - pixels).flatten()
    assert abs(float(inside.mean())) < 4 / math.sqrt(12 * len(inside))
    assert float(inside.var()) == pytest.approx(1 / 12, rel=0.05)
    assert torch.equal(dequantise(pixels[100:], 17, seed=3, start=100), x[100:])


def test_data_without_levels_have_no_bits_and_chains_no_flow() -> None:
    with pytest.raises(ValueError, match="need the number of grey levels"):
        bits_per_dim(torch.zeros(1), 2, None)
    with pytest.raises(ValueError, match="need the number of grey levels"):
        dequantise(torch.zeros(1, 2), None, 0)
    with pytest.raises(ValueError, match="a likelihood needs a process with drift"):
        log_likelihood(lambda x, t: x, torch.zeros(1, 2), process=DDPM())
    with pytest.raises(ValueError, match="probes: 0 is not allowed, allowed: an integer from 1"):
        log_likelihood(lambda x, t: x, torch.zeros(1, 2), process=VP(), probes=0)
    with pytest.raises(ValueError, match=r"for x_t of shape \(3, 2\) it returned \(3, 1\)"):
        log_likelihood(lambda x, t: x[:, :1], torch.zeros(3, 2), process=VP())


def test_images_have_a_likelihood_without_asking_for_probes() -> None:
    """Four of them, each with its error; one alone has an infinite one."""
    mixture = GaussianMixture([[-0.6] * 4, [0.6] * 4], [0.1, 0.2], [0.8, 0.2])
    sde = VE(0.01, 200.0)
    x = mixture.sample(40, torch.Generator().manual_seed(1))[0].view(-1, 1, 2, 2)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return mixture.denoised(x.flatten(1), t, sde).view(x.shape)

    found = log_likelihood(denoise, x, process=sde, mean=-0.36)
    four = log_likelihood(denoise, x, process=sde, mean=-0.36, probes=4)
    assert torch.equal(found.log_prob, four.log_prob)
    assert torch.equal(found.std_error, four.std_error)
    exact = mixture.log_prob(x.flatten(1), torch.full((40,), sde.t_min, dtype=torch.float64), sde)
    error = float(found.std_error.square().mean().sqrt()) / math.sqrt(40)
    assert abs(float((found.log_prob - exact).mean())) < 4 * error + 1e-3
    one = log_likelihood(denoise, x[:2], process=sde, mean=-0.36, probes=1)
    assert one.std_error.tolist() == [math.inf] * 2


def test_an_energy_s_likelihood_is_its_density() -> None:
    """The trace is the second derivative of the function's energy, which it differentiates itself."""
    sde = VE(0.01, 50.0)

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return -GAUSSIAN.log_prob(x, t, sde).sum()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return x - sde.sigma(t)[:, None] ** 2 * torch.func.grad(energy)(x, t)

    x = points(4)
    options = {"process": sde, "mean": torch.tensor(MEAN), "rtol": 1e-2, "atol": 1e-2}
    found = log_likelihood(denoise, x, **options)  # type: ignore[arg-type]
    known = log_likelihood(lambda x, t: GAUSSIAN.denoised(x, t, sde), x, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found.log_prob, known.log_prob, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_the_flow_from_data_to_noise_is_the_known_affine_map(sde: SDE) -> None:
    """O3, forwards."""
    x = points()
    end = flow(
        lambda x, t: GAUSSIAN.denoised(x, t, sde), sde, x, sde.t_min, 1.0, rtol=1e-8, atol=1e-8
    )
    ends = torch.tensor([sde.t_min, 1.0], dtype=torch.float64)
    alpha, v = sde.alpha(ends), sde.alpha(ends) ** 2 * STD**2 + sde.sigma(ends) ** 2
    centre = torch.tensor(MEAN, dtype=torch.float64)
    exact = alpha[1] * centre + (x - alpha[0] * centre) * (v[1] / v[0]).sqrt()
    torch.testing.assert_close(end.x, exact, rtol=1e-6, atol=1e-6)
    assert end.volume is None


@pytest.mark.parametrize("sde", [VE(0.01, 50.0), VP()], ids=str)
def test_encoding_and_decoding_come_back(sde: SDE) -> None:
    torch.manual_seed(0)
    model = Denoiser({"kind": "mlp", "width": 16, "depth": 1}, sde, (3,), MEAN, STD)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x = points(8).float()
    z = encode(model, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(decode(model, z, rtol=1e-6, atol=1e-6), x, rtol=0, atol=2e-4)


def test_the_arc_between_two_latents_keeps_their_length() -> None:
    a, b = torch.eye(3, dtype=torch.float64)[:2, None] * 4
    path = interpolate(a, b, 5)
    assert torch.equal(path[0], a)
    torch.testing.assert_close(path[4], b, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.norm(dim=2), torch.full((5, 1), 4.0, dtype=torch.float64))
    half = 4 / math.sqrt(2)
    torch.testing.assert_close(path[2], torch.tensor([[half, half, 0.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="no one arc"):
        interpolate(a, -a, 3)
