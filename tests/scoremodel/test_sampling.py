"""Sampling from a state, a time and noise of one's own, with functions and samplers of one's own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.processes.base import Process
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.heun import Heun, StochasticHeun
from scoremodel.samplers.langevin_dynamics import AnnealedLangevin, Langevin
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler, RungeKutta
from scoremodel.samplers.reverse_sde import Ancestral, EulerMaruyama, PredictorCorrector
from scoremodel.samplers.sampling import sample

MIXTURE = GaussianMixture([[-0.36, 0.2], [0.36, 0.1]], [0.05, 0.1], [0.8, 0.2])
F64 = {"dtype": torch.float64}


def exact(process: Process) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: MIXTURE.denoised(x, t, process)


def denoiser(process: Process, classes: int | None = None) -> Denoiser:
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": 16, "depth": 1}
    model = Denoiser(network, process, (2,), [0.1, -0.2], 0.5, classes=classes)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


@pytest.mark.parametrize(
    "sampler",
    [
        Heun(6),
        EulerMaruyama(40),
        Ancestral(7),
        StochasticHeun(6),
        DPMSolver(6),
        SDEDPMSolver(6),
        PredictorCorrector(9),
        AnnealedLangevin(5),
        Langevin(4, step_size=1e-5),
        RungeKutta(),
    ],
    ids=lambda one: one.kind,
)
def test_from_a_time_on_ve_is_ve_of_that_height(sampler: Sampler) -> None:
    """sigma_min (sigma_max / sigma_min)^(t u) is VE in u, whose sigma_max is VE's sigma at t."""
    t, whole = 0.6, VE(0.01, 50.0)
    low = VE(0.01, float(whole.sigma(torch.tensor(t, dtype=torch.float64))), t_min=whole.t_min / t)
    asked: list[float] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t.max()))
        return exact(whole)(x, t)

    start = (
        low.prior_std() * torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double()
    )
    here = sample(watched, sampler, 20, 3, process=whole, x_init=start, t_init=t)
    there = sample(exact(low), sampler, 20, 3, process=low, x_init=start)
    torch.testing.assert_close(here.x, there.x, rtol=1e-8, atol=1e-9)
    assert here.nfe == there.nfe
    assert max(asked) <= t
    assert max(asked) > 0.4 or isinstance(sampler, Langevin)  # which is at one level


def test_from_a_level_of_a_chain_the_steps_are_the_rest_of_all_steps() -> None:
    """50 ancestral steps on 50 levels, or 30 from the state after 20, on the same noise."""
    chain = DDPM(levels=50, beta_last=0.2)
    noise = torch.randn(50, 6, 2, generator=torch.Generator().manual_seed(0)).double()
    options: dict[str, Any] = {"process": chain, "shape": (2,), **F64}
    whole = sample(exact(chain), Ancestral(50), 6, 0, noise=noise, trajectory=True, **options)
    assert whole.trajectory is not None
    rest = sample(
        exact(chain),
        Ancestral(30),
        6,
        0,
        x_init=whole.trajectory[20],
        t_init=0.6,
        noise=noise[21:],
        **options,
    )
    torch.testing.assert_close(rest.x, whole.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [VE(0.01, 50.0), VP(), DDPM(levels=500)], ids=str)
@pytest.mark.parametrize("sampler", [SDEDPMSolver(30), DPMSolver(30)], ids=lambda one: one.kind)
def test_data_with_noise_come_back_with_the_data_s_law(sampler: Sampler, process: Process) -> None:
    """SDEdit from p_t itself: the weight of the modes and their widths, to four standard errors."""
    count = 4000
    x, _ = MIXTURE.sample(count, torch.Generator().manual_seed(2))
    t = process.t_of_ratio(torch.tensor(0.4, dtype=torch.float64))
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(3)).double()
    x_init = process.perturb(x, t.expand(count), noise)
    found = sample(
        exact(process),
        sampler,
        count,
        0,
        process=process,
        x_init=x_init,
        t_init=float(t),
        batch_size=count,
    ).x
    left = found[:, 0] < 0
    assert abs(float(left.double().mean()) - 0.8) < 4 * math.sqrt(0.16 / count)
    assert float((left != (x[:, 0] < 0)).double().mean()) > 0.05  # from this noise modes are left
    for mode, mean, std in ((left, 0.2, 0.05), (~left, 0.1, 0.1)):
        second = found[mode, 1]
        error = std / math.sqrt(len(second))
        assert abs(float(second.mean()) - mean) < 4 * error
        assert abs(float(second.std()) - std) < 4 * error / math.sqrt(2) + 0.02 * std


def test_one_latent_through_two_solvers_is_one_sample() -> None:
    process = VP()
    x_init = torch.randn(8, 2, generator=torch.Generator().manual_seed(4)).double()
    options: dict[str, Any] = {"process": process, "x_init": x_init, "trajectory": True}
    fine = sample(exact(process), Heun(200, denoise_last=False), 8, 0, **options)
    solved = sample(exact(process), RungeKutta(denoise_last=False), 8, 1, **options)
    torch.testing.assert_close(fine.x, solved.x, rtol=0, atol=1e-3)
    assert fine.trajectory is not None
    assert torch.equal(fine.trajectory[0], x_init)
    assert fine.x.dtype == torch.float64  # that of x_init


@pytest.mark.parametrize("sampler", [EulerMaruyama(7), Heun(4)], ids=lambda one: one.kind)
def test_the_prior_s_own_draw_given_back_changes_no_byte(sampler: Sampler) -> None:
    model = denoiser(VE(0.01, 50.0))
    whole = sample(model, sampler, 21, 5, trajectory=True)
    assert whole.trajectory is not None
    again = sample(model, sampler, 21, 5, x_init=whole.trajectory[0], batch_size=18)
    assert torch.equal(again.x, whole.x)


def test_noise_given_is_what_is_drawn() -> None:
    """By hand on the plan; as a tensor or by a function, whatever the batch, to the bit."""
    process, sampler = VE(0.01, 50.0), EulerMaruyama(9)
    model = denoiser(process)
    noise = torch.randn(9, 35, 2, generator=torch.Generator().manual_seed(5))
    whole = sample(model, sampler, 35, 0, noise=noise).x
    x = process.prior_std() * noise[0] + model.data_mean
    for step, z in zip(sampler.plan(process), [*noise[1:], noise[0]], strict=True):
        with torch.no_grad():
            denoised = model(x, torch.full((35,), step.t))
        x = step.a * x + step.b * denoised + step.c * z
    torch.testing.assert_close(whole, x, rtol=1e-4, atol=1e-5)
    parts = sample(
        model,
        sampler,
        35,
        0,
        noise=lambda k, those: noise[k, those.start : those.stop],
        batch_size=18,
    ).x
    assert torch.equal(parts, whole)
    with pytest.raises(ValueError, match="noise: 5 draws are not enough"):
        sample(model, sampler, 35, 0, noise=noise[:5])


def test_a_seed_s_samples_are_those_of_every_type() -> None:
    for sampler in (EulerMaruyama(20), Heun(6)):
        model = denoiser(VP())
        single = sample(model, sampler, 20, 9).x
        double = sample(model.double(), sampler, 20, 9).x
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=0, atol=2e-4)
        assert not torch.equal(double.float(), single)


def energy(x: Tensor, t: Tensor) -> Tensor:
    """−ln N(x; 0.3 alpha, alpha² + sigma²), VP's marginal of N(0.3, 1)."""
    return 0.5 * ((x - 0.3 * VP().alpha(t)[:, None]) ** 2).sum()


def tweedie(gradient: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = VP().alpha(t)[:, None], VP().sigma(t)[:, None]
        return (x - sigma**2 * gradient(x, t)) / alpha

    return denoise


def by_autograd(x: Tensor, t: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_(True)
    return torch.autograd.grad(energy(leaf, t), leaf)[0]


def test_a_function_may_take_a_gradient() -> None:
    options: dict[str, Any] = {"process": VP(), "shape": (3,)}
    by_hand = sample(
        tweedie(lambda x, t: x - 0.3 * VP().alpha(t)[:, None]), Heun(9), 4, 0, **options
    ).x
    for gradient in (torch.func.grad(energy), torch.enable_grad()(by_autograd)):
        torch.testing.assert_close(sample(tweedie(gradient), Heun(9), 4, 0, **options).x, by_hand)
    with pytest.raises(
        ValueError, match=r"takes a gradient where gradients are off, allowed: torch"
    ):
        sample(tweedie(by_autograd), Heun(9), 4, 0, **options)


def test_a_sampler_of_one_s_own_needs_two_methods() -> None:
    """The one of docs/extend.md, as it stands there; of order 2 in r."""
    page = Path(__file__).parents[2] / "docs/extend.md"
    (block,) = [
        one
        for one in re.findall(r"^``` python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        if "class Midpoint(" in one
    ]
    known: dict[str, Any] = {}
    exec(compile(block, str(page), "exec"), known)
    mine: Sampler = known["Midpoint"]()
    process = VE(0.01, 50.0)
    for model in (exact(process), denoiser(process).double()):
        options: dict[str, Any] = {"process": process, "shape": (2,), **F64}
        found = sample(model, mine, 5, 0, **options)
        solved = sample(model, RungeKutta(denoise_last=False), 5, 0, **options)
        torch.testing.assert_close(found.x, solved.x, rtol=0, atol=0.01)
        assert found.nfe == 118
    assert mine.kind == "Midpoint"


def test_labels_are_taken_in_every_form() -> None:
    model = denoiser(VP(), classes=3)
    draw = lambda labels: sample(model, Euler(3), 4, 0, labels=labels).x  # noqa: E731
    assert torch.equal(draw([0, 2, 1, 0]), draw(torch.tensor([0, 2, 1, 0])))
    assert torch.equal(draw(np.array([0, 2, 1, 0])), draw([0, 2, 1, 0]))
    assert torch.equal(draw(2), draw([2] * 4))
    assert not torch.equal(draw(2), draw(1))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"sampler": "heun"},
            r"sample: sampler: 'heun' .* allowed: .*Sampler, such as Heun\(steps=18",
        ),
        ({"sampler": Heun}, r"sample: sampler: <class .*Heun'> is not allowed"),
        ({"process": VP}, r"sample: process: <class .*VP'> .* Process, such as VP\(\)"),
        ({"process": "vp"}, "sample: process: 'vp' is not allowed"),
        ({"count": 16.0}, "sample: count: 16.0 is not allowed, allowed: an integer from 1"),
        ({"count": True}, "sample: count: True is not allowed"),
        ({"seed": 0.5}, "sample: seed: 0.5 is not allowed, allowed: an integer"),
        ({"model": "vp"}, "model: 'vp' is not allowed, allowed: a Denoiser, or a function"),
        ({"model": Denoiser}, "model: <class .*Denoiser'> is not allowed"),
        (
            {"model": lambda x, t: x[:, :1]},
            r"model: for x_t of shape \(4, 2\) it returned \(4, 1\)",
        ),
        ({"model": lambda x, t: 0.0}, "it returned float, allowed: a tensor of that shape"),
        ({"t_init": 0.5}, "t_init=0.5 needs x_init"),
        (
            {"t_init": 1e-3, "x_init": torch.zeros(4, 2)},
            r"greater than the process's t_min \(0.001\)",
        ),
        ({"t_init": 1.5, "x_init": torch.zeros(4, 2)}, "t_init: 1.5 is not allowed"),
        ({"x_init": torch.zeros(3, 2)}, r"x_init: torch.float32 of shape \(3, 2\) .* \(4, 2\)"),
        ({"x_init": np.zeros((4, 2))}, "x_init: array.* is not allowed"),
        ({"noise": torch.zeros(4, 2)}, r"noise: .* allowed: .* of shape \(4, 4, 2\)"),
        ({"noise": lambda k, those: torch.zeros(2)}, r"noise: draw 0: .* of shape \(2,\)"),
        ({"mean": [0.1, 0.2, 0.3]}, r"mean: shape \(3,\) is not allowed, allowed: \(\) or \(2,\)"),
    ],
    ids=lambda one: one if isinstance(one, str) else "-".join(one),  # no addresses
)
def test_a_wrong_argument_is_one_line(changed: dict[str, Any], words: str) -> None:
    given = {"model": exact(VP()), "sampler": Heun(3), "count": 4, "seed": 0} | changed
    order = [given.pop(name) for name in ("model", "sampler", "count", "seed")]
    with pytest.raises(ValueError, match=words) as error:
        sample(*order, **({"process": VP(), "shape": (2,)} | given))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [18.0, "18", True, None, [18]])
def test_a_sampler_s_numbers_are_held_to_their_type(wrong: Any) -> None:
    with pytest.raises(
        ValueError, match=r"heun: steps: .* is not allowed, allowed: an integer from"
    ):
        Heun(wrong)
    assert Heun(np.int64(18), grid=[1.0, *np.linspace(0.9, 0.1, 17)]).grid[0] == 1.0  # type: ignore[arg-type]
    assert Heun(torch.tensor(4)) == Heun(4)  # type: ignore[arg-type]


def test_the_process_to_a_time_has_the_drift_and_diffusion_of_its_kernel() -> None:
    from scoremodel.processes.until import until

    short, end = until(VP(), 0.3)
    assert isinstance(short, SDE)
    assert end == 0.3
    t = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    torch.testing.assert_close(SDE.f(short, t), short.f(t), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(SDE.g(short, t), short.g(t), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(short.t_of_ratio(short.ratio(t)), t, rtol=1e-9, atol=1e-12)
