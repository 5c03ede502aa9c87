"""The denoiser: one linear map between parametrisations, its preconditioning, classes and guidance."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import GaussianMixture
from scoremodel.parametrisation import Parametrisation, Preconditioning, convert, preconditioning
from scoremodel.processes.base import Process
from scoremodel.processes.cosine import CosineVP
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample

SDES = [VE(0.01, 50.0), VP(), SubVP()]
NAMES: list[Parametrisation] = ["denoised", "noise", "score", "v"]


def random(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("process", [*SDES, CosineVP(), NCSN(), DDPM()], ids=str)
def test_the_parametrisations_of_a_known_pair_are_their_definitions(process: Process) -> None:
    """From x_0 and noise themselves: D = x_0, ε, s = −ε/sigma, v = alpha ε − sigma x_0."""
    x_0, noise = random(2, 6, 3)
    t = torch.tensor([0.05, 0.1, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)
    x_t = process.perturb(x_0, t, noise)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    known = {
        "denoised": x_0,
        "noise": noise,
        "score": -noise / sigma,
        "v": alpha * noise - sigma * x_0,
    }
    for source, target in itertools.product(NAMES, NAMES):
        out = convert(known[source], x_t, t, process, source, target)
        torch.testing.assert_close(out, known[target], rtol=1e-7, atol=1e-7)


def test_an_unknown_parametrisation_is_named() -> None:
    x = random(2, 3)
    with pytest.raises(ValueError, match="'flow', allowed: denoised, noise, score, v"):
        convert(x, x, torch.ones(2), VP(), "denoised", "flow")  # type: ignore[arg-type]


def denoiser(process: Process, kind: str, **options: object) -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(
        {"kind": "mlp", "width": 16, "depth": 1},
        process,
        (2,),
        [0.3, -0.2],
        0.6,
        preconditioning=kind,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    ).double()
    for parameter in made.parameters():  # the zero-initialised layers would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.mark.parametrize("process", SDES, ids=str)
@pytest.mark.parametrize("kind", ["noise", "v", "denoised"])
def test_the_network_predicts_what_its_preconditioning_says(process: SDE, kind: str) -> None:
    """O8: with VE's and VP's own preconditioning the score is −F / sigma_t.

    In the centred variables y = x_t / alpha_t − m, which VP sees as y / sqrt(1 + r²).
    """
    model = denoiser(process, kind)
    outputs: list[Tensor] = []
    model.network.register_forward_hook(lambda *args: outputs.append(args[2]))
    t = torch.tensor([0.02, 0.3, 0.7, 1.0], dtype=torch.float64)
    x_t = random(4, 2, seed=1)
    score = model.score(x_t, t)
    (f,) = outputs
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    if kind == "noise":
        torch.testing.assert_close(score, -f / sigma, rtol=1e-9, atol=1e-9)
    elif kind == "denoised":
        expected = (alpha * (model.data_mean + f) - x_t) / sigma**2
        torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)
    else:
        a, s = (
            1 / (1 + (sigma / alpha) ** 2).sqrt(),
            (sigma / alpha) / (1 + (sigma / alpha) ** 2).sqrt(),
        )
        y = a * (x_t / alpha - model.data_mean)
        expected = (alpha * (model.data_mean + a * y - s * f) - x_t) / sigma**2
        torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)


def test_edm_s_network_output_is_minus_v_of_data_scaled_to_unit_variance() -> None:
    ratio = torch.logspace(-2, 2, 9, dtype=torch.float64)
    edm, v = preconditioning(ratio, 1.0, "edm"), preconditioning(ratio, 1.0, "v")
    for here, there in zip(edm, (v[0], -v[1], v[2]), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "sigma", "expected"),
    [
        ("ve", 0.02, (1, 0.02, 1)),
        ("ve", 100.0, (1, 100.0, 1)),
        ("vp", 0.75, (1, -0.75, 0.8)),
        ("vp", 2.4, (1, -2.4, 5 / 13)),
        ("edm", 1.2, (25 / 169, 6 / 13, 10 / 13)),
    ],
)
def test_the_published_preconditionings_are_those_of_table_1(
    kind: Preconditioning, sigma: float, expected: tuple[float, float, float]
) -> None:
    """Karras et al. 2022, arXiv:2206.00364, with sigma_data = 0.5; as a number and as a tensor."""
    assert preconditioning(sigma, 0.5, kind) == pytest.approx(expected, rel=1e-14)
    ratio = torch.full((3,), sigma, dtype=torch.float64)
    for found, one in zip(preconditioning(ratio, 0.5, kind), expected, strict=True):
        assert found.tolist() == pytest.approx([one] * 3, rel=1e-14)


@pytest.mark.parametrize(("process", "kind"), [(VE(), "ve"), (VP(), "vp")], ids=["ve", "vp"])
def test_a_published_network_sees_its_process_s_own_state(process: SDE, kind: str) -> None:
    """And its score is ±F / sigma_t: F(x_t) / sigma_t of VE, −F(x_t) / sigma_t of VP."""
    model = denoiser(process, kind)
    seen: list[tuple[Tensor, Tensor]] = []
    model.network.register_forward_hook(lambda _, given, f: seen.append((given[0], f)))
    t = torch.tensor([0.02, 0.3, 0.7, 1.0], dtype=torch.float64)
    x_t = random(4, 2, seed=1)
    score = model.score(x_t, t)
    ((given, f),) = seen
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    torch.testing.assert_close(given, x_t - alpha * model.data_mean, rtol=1e-9, atol=1e-12)
    sign = 1 if kind == "ve" else -1
    torch.testing.assert_close(score, sign * f / sigma, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_preconditioning_has_unit_input_and_the_untrained_model_is_exact_on_a_gaussian(
    sde: SDE,
) -> None:
    """O8: c_in² v = 1; and with F = 0, D is the exact denoised mean of N(m, s² I)."""
    mean, std = [0.3, -0.2], 0.6
    model = Denoiser({"kind": "mlp"}, sde, (2,), mean, std).double()
    inputs = []
    model.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    # The input is linear in the data's and in the noise's own unit normal: unit vectors show both.
    unit = torch.eye(5, 4, dtype=torch.float64)
    x_0 = torch.tensor(mean) + std * unit[:, :2]
    for time in (0.02, 0.5, 1.0):
        t = torch.full((5,), time, dtype=torch.float64)
        x_t = sde.perturb(x_0, t, unit[:, 2:])
        denoised = model(x_t, t)
        shares = inputs[-1][:4] - inputs[-1][4]
        torch.testing.assert_close(inputs[-1][4], torch.zeros(2).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(shares.T @ shares, torch.eye(2).double(), rtol=0, atol=1e-5)
        exact = GaussianMixture([mean], [std], [1.0]).denoised(x_t, t, sde)
        # the mean is stored in single precision
        torch.testing.assert_close(denoised, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["edm", "noise", "v", "ve", "vp"])
def test_without_noise_the_denoiser_is_the_identity(kind: str) -> None:
    x, t = random(4, 2), torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(denoiser(VP(), kind)(x, t), x)
    zeros = torch.zeros_like(x)
    for source in ("noise", "score", "v"):
        torch.testing.assert_close(convert(zeros, x, t, VP(), source, "denoised"), x)


@pytest.mark.parametrize("process", SDES, ids=str)
def test_one_denoiser_along_another_process_s_path_knows_its_noise_level(process: SDE) -> None:
    """EDM: what a model of VE says at r is what it says on any path where r is the same."""
    model = denoiser(VE(0.01, 50.0), "edm")
    t = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)
    y = random(3, 2, seed=4)
    ratio = process.ratio(t)
    own = model(y, model.process.t_of_ratio(ratio).clamp(0, 1))
    inside = (ratio > 0.0101) & (ratio < 50)
    along = model.along(process)(process.alpha(t)[:, None] * y, t)
    assert bool(inside.any())
    torch.testing.assert_close(along[inside], own[inside], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [*SDES, DDPM()], ids=str)
def test_floats_for_one_time_and_tensors_for_many_say_the_same(process: Process) -> None:
    model = denoiser(process, "edm", classes=3)
    labels = torch.tensor([0, 2, -1, 1])
    x_t = random(4, 2, seed=5)
    for guidance, time in itertools.product((0.0, 1.0, 2.5), (0.02, 0.5, 1.0)):
        t = torch.full((4,), time, dtype=torch.float64)
        many = model.along(process, labels, guidance)(x_t, t)
        shown = model.checked(labels, guidance)
        one = model.stepwise(process, [time], guidance)(x_t, time, shown)
        torch.testing.assert_close(one, many, rtol=1e-10, atol=1e-12)


def test_guidance_is_the_line_through_no_class_and_the_class() -> None:
    model = denoiser(VP(), "edm", classes=3)
    x_t, t = random(4, 2, seed=6), torch.full((4,), 0.4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0])
    without, with_class = model(x_t, t), model(x_t, t, labels)
    assert bool(((without - with_class).abs() > 1e-6).all())
    torch.testing.assert_close(model(x_t, t, torch.full((4,), -1)), without, rtol=0, atol=0)
    for scale in (0.0, 0.5, 1.0, 3.0):
        guided = model.along(VP(), labels, scale)(x_t, t)
        expected = without + scale * (with_class - without)
        torch.testing.assert_close(guided, expected, rtol=1e-10, atol=1e-12)


def test_a_sample_is_a_function_of_seed_number_and_label_and_guidance_counts_twice() -> None:
    model = denoiser(VP(), "edm", classes=3)
    labels = torch.arange(10) % 3
    whole = sample(model, Heun(4), 10, 0, labels=labels, guidance=2.0, batch_size=16)
    assert whole.nfe == 2 * 7
    parts = [
        sample(model, Heun(4), 5, 0, labels=part, guidance=2.0, batch_size=16, start=start)
        for start, part in ((0, labels[:5]), (5, labels[5:]))
    ]
    assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
    split = sample(model, Heun(4), 10, 0, labels=labels, guidance=2.0, batch_size=4).x
    torch.testing.assert_close(split, whole.x, rtol=1e-9, atol=1e-9)
    other = sample(model, Heun(4), 10, 0, labels=(labels + 1) % 3, batch_size=16)
    assert other.nfe == 7
    assert bool((other.x != whole.x).any(1).all())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, c: m.score(random(4, 3), torch.ones(4)), r"shape \(B, 2\), got \(4, 3\)"),
        (lambda m, c: m(random(4, 2), torch.ones(3)), r"need times of shape \(4,\), got \(3,\)"),
        (lambda m, c: m(random(4, 2), torch.full((4,), 1.5)), r"in \[0, 1\], got 1.5"),
        (lambda m, c: m(random(4, 2), torch.full((4,), -0.1)), r"in \[0, 1\], got -0.1"),
        (lambda m, c: m(random(4, 2), torch.full((4,), torch.nan)), r"in \[0, 1\], got nan"),
        (lambda m, c: m(random(1, 2), torch.ones(1), torch.zeros(1)), "takes no labels"),
        (lambda m, c: c(random(1, 2), torch.ones(1), torch.tensor([3])), "from 0 to 2, or -1"),
        (lambda m, c: c.along(VP(), torch.tensor([0]), -1.0), "guidance must be at least 0"),
        (lambda m, c: c(random(4, 2), torch.ones(4), torch.tensor([0])), r"labels of shape \(4,\)"),
        (lambda m, c: sample(c, Heun(2), 3, 0, guidance=2.0), "guidance=2.0 needs labels"),
        (lambda m, c: sample(m, Heun(2), 3, 0, dtype=torch.float32), "computes in torch.float64"),
        (lambda m, c: sample(c, Heun(2), 3, 0, labels=torch.zeros(2)), r"labels of shape \(3,\)"),
        (lambda m, c: VP().perturb(random(2, 2), torch.ones(2), random(2, 3)), "noise of that shape"),
        (lambda m, c: VP().alpha(torch.tensor(2.0)), r"in \[0, 1\], got 2"),
        (lambda m, c: DDPM().sigma(torch.tensor(-1.0)), r"in \[0, 1\], got -1"),
        (lambda m, c: VE().reverse_drift(random(2, 2), torch.ones(2), random(2)), "need scores"),
        (lambda m, c: denoiser(VP(), "flow"), "'flow' is not allowed, allowed: edm"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, words: str) -> None:
    model, conditional = denoiser(VP(), "edm"), denoiser(VP(), "edm", classes=3)
    with pytest.raises(ValueError, match=words):
        call(model, conditional)
