"""Score matching of every kind on Gaussian data, where minimum, value and constant are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.loss import (
    Objective,
    Score,
    denoising_weight,
    explicit_score_matching,
    implicit_score_matching,
    score_matching_loss,
    sliced_score_matching,
)
from scoremodel.training.times.log_normal import LogNormal
from scoremodel.training.times.single import Single
from scoremodel.training.times.uniform import Stratified

MEAN = torch.tensor([0.4, -1.0, 0.2], dtype=torch.float64)
STD = 0.5
COUNT = 20_000


def data() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return MEAN + STD * torch.randn(COUNT, 3, generator=draw, dtype=torch.float64)


def true_score(x: Tensor) -> Tensor:
    return -(x - MEAN) / STD**2


def probes(count: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return 2.0 * torch.randint(2, (count, COUNT, 3), generator=draw, dtype=torch.float64) - 1


def linear(slope: Tensor, offset: Tensor) -> Score:
    return lambda x: x @ slope.T + offset


def test_explicit_and_implicit_differ_by_the_known_constant() -> None:
    """½ E |∇ ln p|² = D / (2 s²), for any model; within 4 standard errors of the difference."""
    draw = torch.Generator().manual_seed(2)
    slope = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    x = data()
    score = linear(slope, MEAN)
    explicit = explicit_score_matching(score, true_score, x)
    with torch.no_grad():
        implicit = implicit_score_matching(score, x)
    difference = explicit - implicit
    error = float(difference.std()) / math.sqrt(COUNT)
    assert abs(float(difference.mean()) - 3 / (2 * STD**2)) < 4 * error
    # and each is what it is by hand: tr ∇s is the slope's trace
    by_hand = slope.trace() + score(x).square().sum(1) / 2
    torch.testing.assert_close(implicit, by_hand)
    # the sliced one has the implicit one's mean over probes, point by point
    with torch.no_grad():
        sliced = sliced_score_matching(score, x, probes())
    error = float((sliced - implicit).std()) / math.sqrt(COUNT)
    assert 0 < abs(float((sliced - implicit).mean())) < 4 * error


def test_signs_are_exact_for_a_diagonal_slope() -> None:
    x, score = data(), true_score
    sliced = sliced_score_matching(score, x, probes())
    torch.testing.assert_close(sliced, implicit_score_matching(score, x))


@pytest.mark.parametrize("kind", ["explicit", "implicit", "sliced", "denoising"])
def test_each_one_s_minimum_is_the_true_score(kind: str) -> None:
    """The best linear score −(x − m) / s², by Newton's step on a quadratic loss.

    Denoising with noise n finds the noisy density's, −(x − m) / (s² + n²).
    """
    x, noise_std = data(), 0.3
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    signs = probes()

    def loss(theta: Tensor) -> Tensor:
        score = linear(theta[:9].view(3, 3), theta[9:])
        if kind == "explicit":
            return explicit_score_matching(score, true_score, x).mean()
        if kind == "implicit":
            return implicit_score_matching(score, x).mean()
        if kind == "sliced":
            return sliced_score_matching(score, x, signs).mean()
        return (score(x + noise_std * noise) + noise / noise_std).square().sum(1).mean() / 2

    start = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(start), start)
    curvature = torch.autograd.functional.hessian(loss, start.detach())
    best = -torch.linalg.solve(curvature, slope)
    variance = STD**2 + (noise_std**2 if kind == "denoising" else 0)
    exact = torch.cat([-torch.eye(3).flatten() / variance, MEAN / variance])
    if kind == "explicit":  # no noise in it at all
        torch.testing.assert_close(best, exact.double(), rtol=1e-9, atol=1e-9)
    # standard error of a regression's coefficients, with the spread of each kind's own estimate
    assert float((best - exact).abs().max()) < 5 * 3 / (variance * math.sqrt(COUNT))


@pytest.mark.parametrize("sde", [VE(0.01, 50.0), VP()], ids=str)
def test_all_objectives_have_the_same_mean_gradient_at_every_noise_level(sde: SDE) -> None:
    """Differences of two models' losses agree within 4 standard errors of each difference."""
    oracle = GaussianMixture([MEAN.tolist()], [STD], [1.0])
    x_0, draw = data(), torch.Generator().manual_seed(4)
    noise = torch.randn(x_0.shape, dtype=x_0.dtype, generator=draw)
    for time in (0.3, 0.7):
        t = torch.full((COUNT,), time, dtype=torch.float64)
        weight = denoising_weight(t, sde, "sigma2", STD)

        def losses(
            objective: Objective,
            factor: float,
            t: Tensor = t,
            weight: Tensor = weight,
        ) -> Tensor:
            return score_matching_loss(
                objective,
                lambda x, t: factor * oracle.denoised(x, t, sde),
                x_0,
                t,
                noise,
                sde,
                weight,
                probe=probes()[0],
                true_score=lambda x, t: oracle.score(x, t, sde),
            )

        changes = {
            objective: (losses(objective, 0.8) - losses(objective, 1.0)).detach()
            for objective in ("explicit", "implicit", "sliced", "denoising")
        }
        exact = float(changes["explicit"].mean())
        assert exact > 0
        for change in changes.values():
            error = float((change - changes["explicit"]).std()) / math.sqrt(COUNT)
            assert abs(float(change.mean()) - exact) <= 4 * error + 1e-12


def test_what_an_objective_lacks_is_said() -> None:
    x, t, weight = data()[:2], torch.full((2,), 0.5), torch.ones(2)
    for objective in ("sliced", "explicit", "contrastive"):
        with pytest.raises(ValueError, match=f"'{objective}' is unknown or lacks what it needs"):
            score_matching_loss(objective, lambda x, t: x, x, t, x, VP(), weight)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an exact trace is for vectors"):
        implicit_score_matching(lambda x: x, torch.zeros(2, 1, 4, 4))


def test_a_single_level_is_the_one_asked_for() -> None:
    draw = torch.Generator().manual_seed(0)
    for sde in (VE(0.02, 100.0), VP()):
        t, factor = Single(0.3).draw(4, sde, draw)
        assert sde.ratio(t).tolist() == pytest.approx([0.3] * 4, rel=1e-4)
        assert factor.tolist() == [1.0] * 4
    t, _ = Single(1e-9).draw(1, VP(), draw)
    assert t.tolist() == pytest.approx([1e-3])


MIXTURE = GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.15, 0.15], [0.7, 0.3])
SDE_2D = VE(0.02, 20.0)


def trained(objective: Objective, energy: bool, steps: int) -> Denoiser:
    x, _ = MIXTURE.sample(COUNT, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": 64, "depth": 2}
    mean, std = x.mean(0).tolist(), float((x - x.mean(0)).square().mean().sqrt())
    denoiser = Denoiser(network, SDE_2D, (2,), mean, std, energy=energy)
    config = TrainingConfig(
        steps=steps,
        batch_size=256,
        learning_rate=3e-3,
        warmup_steps=50,
        schedule="cosine",
        objective=objective,
        weighting="edm",
        times=LogNormal() if objective == "denoising" else Stratified(),
    )
    return train(
        denoiser,
        x.float(),
        config,
        0,
        true_score=lambda x, t: MIXTURE.score(x.double(), t.double(), SDE_2D).float(),
    ).denoiser


def relative_error(model: Denoiser, time: float) -> float:
    """Return E |s − s*|² / E |s*|² over noisy data."""
    x_0, _ = MIXTURE.sample(4000, torch.Generator().manual_seed(5))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(6), dtype=x_0.dtype)
    t = torch.full((4000,), time, dtype=torch.float64)
    x_t = SDE_2D.perturb(x_0, t, noise)
    true = MIXTURE.score(x_t, t, SDE_2D)
    off = model.score(x_t.float(), t.float()).double() - true
    return float(off.square().sum() / true.square().sum())


@pytest.mark.parametrize(
    ("objective", "steps", "allowed"),
    [
        ("denoising", 250, 0.01),
        ("explicit", 500, 0.001),
        pytest.param("implicit", 700, 0.15, marks=pytest.mark.slow),
        ("sliced", 250, 0.15),
    ],
)
def test_networks_learn_a_mixture_s_score_by_every_objective(
    objective: Objective, steps: int, allowed: float
) -> None:
    """The exact score as a target is learned best, the noisiest estimate of it worst."""
    model = trained(objective, energy=False, steps=steps)
    assert relative_error(model, 0.5) < allowed


@pytest.mark.parametrize(
    ("objective", "steps", "allowed"),
    [("denoising", 250, 0.06), pytest.param("sliced", 700, 0.3, marks=pytest.mark.slow)],
)
def test_an_energy_is_learned_and_its_gradient_is_the_score(
    objective: Objective, steps: int, allowed: float
) -> None:
    model = trained(objective, energy=True, steps=steps)
    t = torch.full((400,), 0.6)
    draw = torch.Generator().manual_seed(7)
    x_0, _ = MIXTURE.sample(400, draw)
    noise = torch.randn(x_0.shape, generator=draw, dtype=x_0.dtype)
    x = SDE_2D.perturb(x_0, t.double(), noise).float().requires_grad_(True)
    energy = model.energy(x, t)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(model.score(x.detach(), t), -gradient, rtol=1e-3, atol=1e-3)
    # −f is ln p_t up to a constant: differences of the two, over the data, nearly vanish.
    log_prob = MIXTURE.log_prob(x.detach().double(), t.double(), SDE_2D)
    rest = -energy.detach().double() - log_prob
    assert float(rest.std()) < allowed * float(log_prob.std())
    with pytest.raises(ValueError, match="has a score but no energy"):
        trained("denoising", energy=False, steps=1).energy(x, t)
