"""What docs/factorial.md says of VE and VP: EDM's recipe is the same training, the first one is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.parametrisation import Preconditioning
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.heun import Heun
from scoremodel.training.loss import denoising_loss, denoising_weight
from scoremodel.training.times.base import Times
from scoremodel.training.times.log_normal import LogNormal
from scoremodel.training.times.uniform import Uniform

VE_, VP_ = VE(0.02, 100.0), VP(0.1, 20.0)
PAGE = Path(__file__).parents[2] / "docs/factorial.md"
COUNT = 20_000
STD = 0.7


def ratios(times: Times, sde: SDE) -> Tensor:
    """Return the noise ratios of many draws."""
    t, factor = times.draw(COUNT, sde, torch.Generator().manual_seed(0))
    assert factor.unique().tolist() == [1.0]
    return sde.ratio(t.double())


def denoiser(sde: SDE, kind: Preconditioning) -> Denoiser:
    """Return the same network for every process."""
    torch.manual_seed(0)
    mlp = {"kind": "mlp", "width": 16, "depth": 1, "dropout": 0.0}
    found = Denoiser(mlp, sde, (2,), (0.1, -0.2), STD, preconditioning=kind)
    for weight in found.parameters():  # its last layer starts at zero
        torch.nn.init.normal_(weight, std=0.3)
    return found.double()


def cut(sde: SDE) -> tuple[float, float]:
    low, high = sde.ratio(torch.tensor([sde.t_min, 1.0], dtype=torch.float64)).tolist()
    return low, high


def test_with_edm_s_recipe_the_two_are_trained_on_the_same_but_for_the_ends() -> None:
    ve, vp = (ratios(LogNormal(), sde) for sde in (VE_, VP_))
    shared = (ve > cut(VE_)[0] * 1.001) & (vp > cut(VP_)[0] * 1.001)
    torch.testing.assert_close(ve[shared], vp[shared], rtol=1e-3, atol=0)  # times are float32
    said = PAGE.read_text()
    for sde, r, name in ((VE_, ve, "ve"), (VP_, vp, "vp")):
        low, high = cut(sde)
        share = float((r <= low * 1.001).double().mean())
        assert f"{share:.1%}".replace("%", f" % of `{name}`") in said
        assert f"{low:.3g} to {high:.3g}" in said
    assert int((ve > 99).sum()) == int((vp > 99).sum()) == 0


def test_with_edm_s_recipe_each_loss_and_its_gradient_are_the_same() -> None:
    draw = torch.Generator().manual_seed(1)
    x_0 = torch.randn(64, 2, generator=draw, dtype=torch.float64)
    noise = torch.randn(64, 2, generator=draw, dtype=torch.float64)
    r = torch.logspace(-1.6, 1.9, 64, dtype=torch.float64)
    losses, gradients = [], []
    for sde in (VE_, VP_):
        t, model = sde.t_of_ratio(r), denoiser(sde, "edm")
        weight = denoising_weight(t, sde, "edm", STD)
        losses.append(denoising_loss(model, x_0, t, noise, sde, weight))
        gradients.append(torch.autograd.grad(losses[-1].mean(), list(model.parameters())))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-8, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("sde", [VE_, VP_], ids=str)
def test_the_first_recipe_s_loss_is_the_plain_error_of_the_noise(sde: SDE) -> None:
    draw = torch.Generator().manual_seed(2)
    x_0 = torch.randn(32, 2, generator=draw, dtype=torch.float64)
    noise = torch.randn(32, 2, generator=draw, dtype=torch.float64)
    t = torch.linspace(0.01, 1, 32, dtype=torch.float64)
    model, predicted = denoiser(sde, "noise"), []
    model.network.register_forward_hook(lambda *given: predicted.append(given[-1]))
    weight = denoising_weight(t, sde, "sigma2", STD)
    loss = denoising_loss(model, x_0, t, noise, sde, weight)
    torch.testing.assert_close(loss, (predicted[0] - noise).square().mean(1), rtol=1e-7, atol=1e-9)


def test_the_page_says_which_noise_levels_each_training_sees() -> None:
    rows = re.findall(r"^\| (EDM's[^|]*|`v._2021`) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    drawn = [
        ratios(times, sde)
        for times, sde in ((LogNormal(), VE_), (Uniform(), VE_), (Uniform(), VP_))
    ]
    assert len(rows) == len(drawn)
    for (_, said), r in zip(rows, drawn, strict=True):
        *shares, median = said.split(" | ")
        edges = torch.tensor([0.0, 0.1, 1.0, 10.0, 1e9], dtype=torch.float64)
        found = torch.histogram(r, edges).hist / COUNT
        for share, known in zip(shares, found.tolist(), strict=True):
            # Half a percent of rounding, and four standard errors of a draw.
            assert abs(float(share.removesuffix(" %")) / 100 - known) < 0.005 + 2 / COUNT**0.5
        assert float(median) == pytest.approx(float(r.median()), rel=0.05)


def test_between_the_same_ends_heun_takes_the_same_steps_along_both() -> None:
    data = GaussianMixture([[0.5, -0.5], [-0.5, 0.2]], [0.1, 0.3], [0.4, 0.6])
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = cut(VP_)[1]
    ends = []
    for sde in (VE(0.02, first), VP_):
        times = sde.t_of_ratio(torch.logspace(2, -1.5, 12, dtype=torch.float64)).tolist()
        sampler = Heun(steps=13, grid=(1.0, *times))

        def denoise(x: Tensor, t: float, sde: SDE = sde) -> Tensor:
            return data.denoised(x, torch.full((len(x),), t, dtype=torch.float64), sde)

        x = float(sde.alpha(torch.ones((), dtype=torch.float64))) * first * z
        *_, end = sampler.states(sampler.plan(sde), x, denoise, lambda: z)
        ends.append(end)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-7, atol=1e-9)
    assert float(ends[0].std()) > 0.1
