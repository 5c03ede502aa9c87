"""Inverse problems: on Gaussian data each method's posterior against the exact one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.inverse import Method, blur, downsample, mask, posterior, restore
from scoremodel.oracles import Gaussian
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample


def isotropic() -> Gaussian:
    mean = torch.tensor([0.3, -0.5, 0.1, 0.8], dtype=torch.float64)
    return Gaussian(mean, 0.4**2 * torch.eye(4, dtype=torch.float64))


def correlated() -> Gaussian:
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=draw, dtype=torch.float64) / 2
    covariance = root @ root.T + 0.05 * torch.eye(4, dtype=torch.float64)
    return Gaussian(torch.tensor([0.3, -0.5, 0.1, 0.8], dtype=torch.float64), covariance)


def matrix() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, generator=draw, dtype=torch.float64)


def reached(
    data: Gaussian, sde: SDE, method: Method, y: Tensor, noise_std: float
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of what is drawn: x = m + L z, read off from unit vectors z."""
    a = matrix()
    denoise = posterior(
        lambda x, t: data.denoised(x, t, sde),
        lambda x: x @ a.T,
        y,
        noise_std,
        method=method,
        process=sde,
        std=math.sqrt(float(data.variances.mean())),
    )
    x = sample(
        denoise,
        Heun(70),
        5,
        0,
        process=sde,
        shape=(4,),
        dtype=torch.float64,
        mean=data.mean,
        noise=torch.eye(5, 4, dtype=torch.float64)[None],
    ).x  # fmt: skip
    columns = (x[:4] - x[4]).T
    return x[4], columns @ columns.T


@pytest.mark.parametrize("noise_std", [0.1, 0.0])
@pytest.mark.parametrize("sde", [VE(0.002, 100.0), VP()], ids=str)
@pytest.mark.parametrize(
    ("data", "method"),
    [(isotropic(), "pigdm"), (isotropic(), "mmps"), (correlated(), "mmps")],
    ids=["isotropic-pigdm", "isotropic-mmps", "correlated-mmps"],
)
def test_the_posterior_of_gaussian_data_is_exact(
    data: Gaussian, method: Method, sde: SDE, noise_std: float
) -> None:
    """Mean and covariance, but for the error of 70 steps; without noise A x is y."""
    y = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    mean, covariance = data.posterior(matrix(), y, noise_std)
    found, spread = reached(data, sde, method, y, noise_std)
    if not noise_std:
        torch.testing.assert_close(found @ matrix().T, y[0], rtol=0, atol=1e-9)
    variances = covariance.diagonal()
    assert ((found - mean[0]).abs() < 0.01 * variances.sqrt()).all()
    assert ((spread - covariance).abs() < 0.01 * torch.outer(variances, variances).sqrt()).all()


def test_pigdm_is_wrong_by_what_it_leaves_out() -> None:
    """For correlated data its V is not the data's: its mean misses."""
    data, y = correlated(), torch.tensor([[4.0, -3.0]], dtype=torch.float64)
    mean, covariance = data.posterior(matrix(), y, 0.1)
    found, _ = reached(data, VP(), "pigdm", y, 0.1)
    missed = (found - mean[0]).abs() / covariance.diagonal().sqrt()
    assert missed.max() > 0.16
    # but what was measured it has: y − A x is of the noise's size, and of the data's without y
    assert float((found @ matrix().T - y).abs().max()) < 2 * 0.1
    assert float((data.mean @ matrix().T - y).abs().min()) > 1


def test_the_best_linear_estimate_of_a_gaussian_is_the_conditional_mean() -> None:
    """By the precision matrix: C_post⁻¹ = C⁻¹ + Aᵀ A / std²."""
    data, a, y = correlated(), matrix(), torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    mean, covariance = data.posterior(a, y, 0.1)
    precision = data.covariance.inverse() + a.T @ a / 0.01
    torch.testing.assert_close(covariance, precision.inverse(), rtol=1e-10, atol=1e-12)
    direct = covariance @ (data.covariance.inverse() @ data.mean + a.T @ y[0] / 0.01)
    torch.testing.assert_close(mean[0], direct, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_without_noise_what_is_known_stays_and_the_rest_is_its_conditional_mean(
    dtype: torch.dtype,
) -> None:
    """Of a mask, whose A Aᵀ is singular; from x_t without noise, and from pure noise."""
    data, sde = correlated(), VP()
    known = torch.tensor([True, False, True, False])
    select = torch.eye(4, dtype=torch.float64)[known]
    x = torch.tensor([[0.7, 0.0, -0.4, 0.0]], dtype=torch.float64)
    mean, _ = data.posterior(select, x[:, known], 0.0)
    data = Gaussian(data.mean.to(dtype), data.covariance.to(dtype))
    denoise = posterior(
        lambda x, t: data.denoised(x, t, sde), mask(known), x.to(dtype), 0.0, process=sde
    )
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)).to(dtype)
    late = denoise(noise, torch.ones(5, dtype=dtype)).double()
    small = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(late[:, known], x[:, known].expand(5, -1), rtol=0, atol=small)
    # of t = 1 alpha is 0.0066, so that x_t says next to nothing
    torch.testing.assert_close(late, mean.expand(5, -1), rtol=0, atol=0.02)
    early = denoise(noise, torch.full((5,), 0.01, dtype=dtype)).double()
    torch.testing.assert_close(early[:, known], x[:, known].expand(5, -1), rtol=0, atol=small)


def test_a_double_model_restores_labels_of_one_for_all() -> None:
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": 8, "depth": 1}
    model = Denoiser(network, VP(), (4,), [0.0] * 4, 0.5, classes=3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    y = torch.tensor([[0.7, 0.0, -0.4, 0.0]]).repeat(3, 1)
    known = mask(torch.tensor([True, False, True, False]))
    single = restore(model, known, y, 0.0, Heun(4), 1, labels=2, iterations=9)
    double = restore(
        model.double(),
        known,
        y.double(),
        0.0,
        Heun(4),
        1,
        labels=[2, 2, 2],
        batch_size=2,
        iterations=9,
    )
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-3)
    torch.testing.assert_close(known(double), y.double(), rtol=0, atol=1e-6)


def test_operators_are_what_they_are_called() -> None:
    x = torch.arange(32, dtype=torch.float64).view(2, 1, 4, 4)
    known = torch.tensor([True, True, False, False])
    assert mask(known)(x)[1, 0, 2].tolist() == [24.0, 25.0, 0.0, 0.0]
    assert downsample(2)(x)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    point = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    point[0, 0, 4, 4] = 1
    spot = blur(1.0)(point)[0, 0]
    assert float(spot.sum()) == pytest.approx(1)
    assert float(spot[4, 5] / spot[4, 4]) == pytest.approx(math.exp(-0.5))


def test_bad_requests_are_refused() -> None:
    data = isotropic()
    denoise = lambda x, t: data.denoised(x, t, VP())  # noqa: E731
    y = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="unknown method 'dps', allowed: pigdm, mmps"):
        posterior(denoise, mask(y), y, 0.1, method="dps", process=VP())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"posterior: noise_std: -0\.1 is not allowed"):
        posterior(denoise, mask(y), y, -0.1, process=VP())
    with pytest.raises(ValueError, match="needs a process, and for 'pigdm' the data's std"):
        posterior(denoise, mask(y), y, 0.1, method="pigdm", process=VP())
