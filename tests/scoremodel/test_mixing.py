"""O9: the mixing weights of modes far apart, kept by many noise levels and lost by plain Langevin."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.processes.base import Process
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.base import SAMPLERS, Call, Sampler
from scoremodel.samplers.heun import Heun, StochasticHeun
from scoremodel.samplers.langevin_dynamics import AnnealedLangevin, unadjusted_langevin
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler, RungeKutta
from scoremodel.samplers.reverse_sde import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
)
from scoremodel.samplers.sampling import sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.times.uniform import Stratified

WEIGHT, COUNT = 0.8, 10_000
ERROR = math.sqrt(WEIGHT * (1 - WEIGHT) / COUNT)


def mixture(dimension: int = 2, weight: float = WEIGHT) -> GaussianMixture:
    """Return the pipeline's two modes at ±(0.6, 0.6), 17 standard deviations apart."""
    tail = [0.0] * (dimension - 2)
    return GaussianMixture(
        [[-0.6, -0.6, *tail], [0.6, 0.6, *tail]], [0.1, 0.1], [weight, 1 - weight]
    )


def share(x: Tensor) -> float:
    """Return the share of points on the first mode's side."""
    return float((x[:, :2].sum(1) < 0).double().mean())


_CHOSEN: dict[str, Sampler] = {
    "ancestral": Ancestral(300, grid="log_snr"),
    "ddim": DDIM(200, grid="log_snr", eta=0.5),
    "dpm_solver": DPMSolver(30),
    "euler": Euler(100, grid="log_snr"),
    "euler_maruyama": EulerMaruyama(500),
    "heun": Heun(30),
    "predictor_corrector": PredictorCorrector(500, grid="log_snr", snr=0.05),
    "reverse_diffusion": ReverseDiffusion(500, grid="log_snr"),
    "runge_kutta": RungeKutta(),
    "sde_dpm_solver": SDEDPMSolver(50),
    "stochastic_heun": StochasticHeun(40, s_churn=10.0),
    "annealed_langevin": AnnealedLangevin(25, steps_per_level=160, step_size=0.05),
}


# Every kind but plain Langevin, which loses the weights: see below.
EXACT = {
    kind: _CHOSEN.get(kind) or SAMPLERS.make(kind, steps=300, grid="log_snr")
    for kind in SAMPLERS
    if kind != "langevin"
}


HALF = 0.6 * math.sqrt(2)


def on_the_line(process: Process, times: Sequence[float]) -> Call:
    """Return the exact denoiser of the mixture along the line through its modes ±HALF.

    D = k x + (1 − alpha k) m tanh(alpha m x / v + ln(w_2 / w_1) / 2) with k = alpha s² / v. A sampler that
    treats all directions alike does along this line what it does in the plane.
    """

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, sigma = process.alpha(t), process.sigma(t)
        v = alpha**2 * 0.1**2 + sigma**2
        k = alpha * 0.1**2 / v
        return k, (1 - alpha * k) * HALF, alpha * HALF / v

    columns = [part.tolist() for part in coefficients(torch.tensor(times, dtype=torch.float64))]
    table = dict(zip(times, zip(*columns, strict=True), strict=True))
    tilt = math.log((1 - WEIGHT) / WEIGHT) / 2

    def denoise(x: Tensor, t: float | Tensor) -> Tensor:
        k, reach, slope = (
            table[t] if isinstance(t, float) else (c[:, None] for c in coefficients(t))
        )
        return k * x + reach * torch.tanh(slope * x + tilt)

    return denoise


def share_on_the_line(sampler: Sampler, process: Process, seed: int) -> float:
    """Return the share of samples on the first mode's side."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(COUNT, 1, dtype=torch.float64, generator=generator)

    plan = sampler.plan(process)
    x = process.prior_std() * draw()
    if process.prior_keeps_mean:
        x += (1 - 2 * WEIGHT) * HALF
    denoise = on_the_line(process, sampler.call_times(plan))
    *_, last = sampler.states(plan, x, denoise, draw)
    return float((last < 0).double().mean())


def test_the_line_s_denoiser_is_the_mixture_s() -> None:
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    t = torch.full((21,), 0.4, dtype=torch.float64)
    for process in (VE(0.02, 20.0), VP()):
        theirs = mixture().denoised(x / math.sqrt(2) * torch.ones(2), t, process)
        for time in (0.4, t):
            found = on_the_line(process, [0.4])(x, time)
            torch.testing.assert_close(found / math.sqrt(2) * torch.ones(2), theirs)


# Annealed Langevin's weights freeze where chains stop crossing between the modes: it needs hundreds of
# steps at each of few levels, and is defined where the prior knows the data's mean (alpha = 1).
PAIRS = [
    pytest.param(name, process, id=f"{name}-{process.kind}")
    for name in EXACT
    for process in ([VE(0.05, 4.0)] if name == "annealed_langevin" else [VE(0.02, 20.0), VP()])
]


@pytest.mark.parametrize(("name", "process"), PAIRS)
def test_with_the_exact_score_the_weights_come_out(name: str, process: SDE) -> None:
    """Ten thousand samples, three standard errors, no slack for the discretisation."""
    assert abs(share_on_the_line(EXACT[name], process, 2) - WEIGHT) < 3 * ERROR


@pytest.mark.long
@pytest.mark.parametrize("process", [VE(0.02, 20.0), VP()], ids=str)
def test_a_corrector_by_norms_keeps_the_weights_in_many_dimensions(process: SDE) -> None:
    """The plane of the mixture is put into 64 dimensions: norms mean something in many only."""
    oracle = mixture(64)
    x = sample(
        lambda x, t: oracle.denoised(x, t, process),
        dataclasses.replace(_CHOSEN["predictor_corrector"], step_size="norm"),  # type: ignore[type-var]
        COUNT,
        2,
        process=process,
        shape=(64,),
        mean=oracle.weights @ oracle.means,
        dtype=torch.float64,
        batch_size=COUNT,
    ).x
    assert abs(share(x) - WEIGHT) < 3 * ERROR


@pytest.mark.parametrize("chain", [NCSN(0.02, 20.0, 300), DDPM()], ids=str)
@pytest.mark.parametrize(
    "name",
    ["ancestral", "ddim", "dpm_solver", "euler", "heun", "reverse_diffusion", "sde_dpm_solver"],
)
def test_with_the_exact_score_the_chains_keep_the_weights(name: str, chain: NCSN | DDPM) -> None:
    sampler = dataclasses.replace(EXACT[name], steps=299, grid="uniform")  # type: ignore[type-var]
    assert abs(share_on_the_line(sampler, chain, 3) - WEIGHT) < 3 * ERROR


@pytest.mark.parametrize("weight", [0.5, 0.8, 0.99])
def test_plain_langevin_splits_by_the_basins_whatever_the_weights(weight: float) -> None:
    """From a uniform start in a square, by the area on either side of the line of equal density.

    That line lies s² ln(w_1 / w_2) / |m_2 − m_1| beyond the middle, a hundredth of a side at most.
    """
    oracle = GaussianMixture([[-0.6, 0.0], [0.6, 0.0]], [0.1, 0.1], [weight, 1 - weight])
    process = VE(1e-4, 1.0)
    t = torch.zeros(COUNT, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    start = 2.4 * torch.rand(COUNT, 2, dtype=torch.float64, generator=draw) - 1.2
    x = unadjusted_langevin(lambda x: oracle.score(x, t, process), start, 1e-3, 60, 1)
    line = 0.1**2 * math.log(weight / (1 - weight)) / 1.2
    predicted = (1.2 + line) / 2.4
    found = float((x[:, 0] < line).double().mean())
    assert abs(found - predicted) < 3 * 0.5 / math.sqrt(COUNT)
    # each chain has reached its mode, so this is where it stays
    spread = (x[:, 0].abs() - 0.6).square().mean().sqrt()
    assert float(spread) == pytest.approx(0.1, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "sampler"),
    [
        pytest.param(VE(0.02, 20.0), Heun(25), marks=pytest.mark.long),
        (VP(), Heun(25)),
        pytest.param(SubVP(), SDEDPMSolver(50), marks=pytest.mark.long),
        pytest.param(
            NCSN(0.02, 4.0, 25),
            AnnealedLangevin(steps_per_level=60, step_size=0.1),
            marks=pytest.mark.long,
        ),
        (DDPM(), Ancestral(250, grid="uniform")),
    ],
    ids=lambda value: value.kind,
)
def test_trained_networks_keep_the_weights(process: Process, sampler: Sampler) -> None:
    """Three standard errors and .02 for what is learned and for the 10,000 points it is learned from."""
    data, _ = mixture().sample(COUNT, torch.Generator().manual_seed(0))
    data = data.float()
    mean, std = data.mean(0), float((data - data.mean(0)).square().mean().sqrt())
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": 96, "depth": 3}
    denoiser = Denoiser(network, process, (2,), mean.tolist(), std)
    config = TrainingConfig(
        steps=3000,
        batch_size=512,
        learning_rate=2e-3,
        warmup_steps=50,
        schedule="cosine",
        weighting="edm",
        times=Stratified(),
    )
    averaged = train(denoiser, data, config, 0).denoiser
    x = sample(averaged, sampler, COUNT, 0, batch_size=COUNT).x
    assert abs(share(x) - WEIGHT) < 3 * ERROR + 0.02
