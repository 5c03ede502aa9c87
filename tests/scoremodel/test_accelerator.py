"""On a pretended accelerator: the CPU's numbers, no tensors of both, no wait in a loop but those listed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from scoremodel import default_rng, rng
from scoremodel.default_rng import seed_default_generators
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.extractors.classifier import Classifier
from scoremodel.inverse import blur, downsample, mask, restore
from scoremodel.latents import decode, encode
from scoremodel.likelihood import log_likelihood
from scoremodel.processes.base import Process
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.probability_flow import RungeKutta
from scoremodel.samplers.sampling import Samples, sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from scoremodel.training.times.base import TIMES
from tests.pretend import DEVICE, Accelerator, host, moved, pretend

pytest.importorskip("torchode")  # here, and not for the first time in inference mode

VECTOR = {"kind": "mlp", "width": 16, "depth": 1}
IMAGE = {"kind": "unet", "width": 8, "multipliers": [1, 2]}

Places = dict[tuple[str, str], str]

STEP: Places = {}
"""What a training step waits for."""

SOLVING: Places = {
    ("wait", "flow.py: flow.<locals>.slope"): "what is not finite must end the solver, not hang it",
    ("wait", "flow.py: flow"): "an adaptive solver asks after each step whether all have arrived",
    ("copy", "flow.py: flow"): "once for each batch: its table and the ends",
}
"""What an adaptive solver waits for."""

FEATURES: Places = {
    (
        "copy",
        "evaluation/extractors/classifier.py: Classifier.features",
    ): "images come from the host",
    ("wait", "evaluation/extractors/classifier.py: Classifier.features"): "features go to the host",
}
"""What each batch of features waits for: it comes and goes."""


def made(process: Process, shape: tuple[int, ...], **options: Any) -> Denoiser:
    torch.manual_seed(0)
    network = VECTOR if len(shape) == 1 else IMAGE
    model = Denoiser(network, process, shape, [0.1] * shape[0], 0.5, **options).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model


def hot(few: Callable[[], object], many: Callable[[], object], there: Accelerator) -> set[Any]:
    """Return what `many` rounds of a loop ask for and `few` do not, as often."""
    asked = []
    for call in (few, few, many):  # the first one fills what is kept
        there.asked.clear()
        call()
        asked.append(Counter(there.asked))
    return set(asked[2] - asked[1])


def test_the_pretended_accelerator_knows_what_a_real_one_would_mind() -> None:
    x = torch.arange(6.0).view(2, 3)
    with pretend() as there:
        y = x.to(DEVICE)
        assert y.device == (y + 1).device == torch.zeros(2, device=DEVICE).device == DEVICE
        assert torch.equal(host(y @ y.T), x @ x.T)
        for mixed in (lambda: y + x, lambda: torch.cat([y, x]), lambda: x.add_(y)):
            with pytest.raises(RuntimeError, match="on the accelerator and on the CPU"):
                mixed()
        assert float((y + torch.tensor(1.0)).sum()) == 21
        there.asked.clear()
        for wait in (
            lambda: y[0, 0].item(),
            lambda: y.tolist(),
            lambda: bool(y.isfinite().all()),
            lambda: y.nonzero(),
            lambda: y[y > 1],
            lambda: y.cpu(),
            lambda: x.copy_(y),
        ):
            before = there.asked["wait", "elsewhere"]
            wait()
            assert there.asked["wait", "elsewhere"] > before
        assert there.asked["copy", "elsewhere"] == 0
        for arrival in (lambda: x.to(DEVICE), lambda: y[torch.tensor([0, 1])], lambda: y.copy_(x)):
            arrival()
        assert there.asked["copy", "elsewhere"] == 3
        model = made(VE(), (2,))
        with pytest.raises(RuntimeError, match="on the accelerator and on the CPU"):
            moved(model)(torch.zeros(3, 2), 0.5)


TRAININGS: dict[str, tuple[Process, tuple[int, ...], dict[str, Any]]] = {
    "denoising": (VE(), (1, 6, 6), {"flip": True, "dequantise": True}),
    "classes": (VP(), (1, 6, 6), {"label_dropout": 0.2, "parts": 2}),
    "sliced": (VP(), (1, 6, 6), {"objective": "sliced"}),
    "implicit": (VP(), (2,), {"objective": "implicit"}),
    "explicit": (VE(), (2,), {"objective": "explicit", "ema_half_lives": (50.0, 500.0)}),
    "chain": (DDPM(levels=50, beta_last=0.2), (2,), {"times": TIMES.make("log_normal")}),
    "levels": (DDPM(levels=50, beta_last=0.2), (2,), {"times": TIMES.make("stratified")}),
    "importance": (
        SubVP(),
        (2,),
        {"times": TIMES.make("importance"), "weighting": "likelihood"},
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_step_waits_for_nothing(name: str) -> None:
    process, shape, options = TRAININGS[name]
    draw = torch.Generator().manual_seed(0)
    data, labels, levels = torch.randn(400, *shape, generator=draw), None, None
    if len(shape) == 3:
        data, levels = torch.randint(17, (400, *shape), dtype=torch.uint8, generator=draw), 17
    if "label_dropout" in options:
        labels = torch.randint(3, (400,), generator=draw)
    classes = None if labels is None else 3
    model = made(process, shape, levels=levels, classes=classes)

    def trained(model: Denoiser, steps: int) -> list[Tensor]:
        config = TrainingConfig(steps=steps, batch_size=16, log_every=100, **options)
        explicit = {"true_score": lambda x, t: -x} if name == "explicit" else {}
        found = train(copy.deepcopy(model), data, config, 0, labels=labels, **explicit)
        return [host(weight) for weight in found.denoiser.parameters()]

    plain = trained(model, 6)
    with pretend() as there:
        elsewhere = moved(model)
        assert hot(lambda: trained(elsewhere, 2), lambda: trained(elsewhere, 6), there) == set(STEP)
        for weight, other in zip(trained(elsewhere, 6), plain, strict=True):
            torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6)


def asked_by_steps(model: Denoiser, kind: str, **options: Any) -> set[Any]:
    """Return what each step of a sampler waits for; its samples are held to the CPU's, to the bit."""

    def drawn(model: Denoiser, steps: int) -> Samples:
        # An accelerator's own roots are right, but here it is the CPU that takes them.
        with mock.patch.object(rng, "_root", lambda x: x.double().sqrt_().float()):
            return sample(model, SAMPLERS.make(kind, steps=steps), 20, 0, **options)

    plain = drawn(model, 36)
    with pretend() as there:
        elsewhere = moved(model)
        found = hot(lambda: drawn(elsewhere, 4), lambda: drawn(elsewhere, 36), there)
        again = drawn(elsewhere, 36)
    assert torch.equal(host(again.x), plain.x), kind
    assert again.nfe == plain.nfe
    return found


def test_samplers_wait_for_nothing() -> None:
    """Every kind, on an SDE and on a chain, for a class and guided."""
    for process in (VE(), DDPM(levels=50, beta_last=0.2)):
        model = made(process, (64,), classes=3)
        for kind in SAMPLERS:
            if kind == "runge_kutta" or (
                process.kind == "ddpm" and kind in ("euler_maruyama", "stochastic_heun")
            ):
                continue
            found = asked_by_steps(model, kind, labels=torch.arange(20) % 3, guidance=2.0)
            assert not found, kind


def test_an_image_s_network_and_a_function_wait_for_nothing() -> None:
    model = made(VP(), (1, 8, 8), preconditioning="noise")

    def exact(x: Tensor, t: Tensor) -> Tensor:
        return x / (1 + t[:, None])

    with pretend() as there:
        elsewhere = moved(model)
        for few, many in (
            (lambda: sample(elsewhere, Heun(2), 20, 0), lambda: sample(elsewhere, Heun(6), 20, 0)),
            (
                lambda: sample(exact, Heun(2), 4, 0, process=VP(), shape=(2,), device=DEVICE),
                lambda: sample(exact, Heun(6), 4, 0, process=VP(), shape=(2,), device=DEVICE),
            ),
        ):
            assert hot(few, many, there) == set()
        x = sample(elsewhere, Heun(6), 20, 0).x
    torch.testing.assert_close(host(x), sample(model, Heun(6), 20, 0).x)


@pytest.mark.parametrize("process", [VE(), SubVP()], ids=str)
def test_the_adaptive_solver_waits_where_it_must(process: SDE) -> None:
    model = made(process, (2,))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    options = {"rtol": 1e-3, "atol": 1e-3}

    def asked(model: Denoiser, x: Tensor) -> list[Tensor]:
        z = encode(model, x, **options)
        return [
            log_likelihood(model, x, **options).log_prob,
            z,
            decode(model, z, **options),
            sample(model, RungeKutta(**options), 20, 0).x,
        ]

    plain = asked(model, x)
    with pretend() as there:
        elsewhere, x = moved(model), x.to(DEVICE)
        asked(elsewhere, x)  # fills what is kept
        there.asked.clear()
        found = asked(elsewhere, x)
        once = {one for one in there.asked if there.asked[one] <= 1}
        assert set(there.asked) - once == set(SOLVING)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(host(one), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "operator",
    [blur(1.0), downsample(2), mask(torch.arange(64).view(1, 8, 8) % 3 == 0)],
    ids=["blur", "downsample", "mask"],
)
def test_restoring_waits_for_nothing(operator: Callable[[Tensor], Tensor]) -> None:
    model = made(VP(), (1, 8, 8))
    y = operator(torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    plain = restore(model, operator, y, 0.1, Heun(3), 0, iterations=2)
    with pretend() as there:
        elsewhere, y = moved(model), y.to(DEVICE)

        def restored(steps: int) -> Tensor:
            return restore(elsewhere, operator, y, 0.1, Heun(steps), 0, iterations=2)

        assert hot(lambda: restored(2), lambda: restored(5), there) == set()
        torch.testing.assert_close(host(restored(3)), plain, rtol=1e-4, atol=1e-4)


def test_features_come_and_go_once_a_batch() -> None:
    torch.manual_seed(0)
    extractor = Classifier((1, 8, 8), 17, 10).eval().requires_grad_(False)
    images = torch.randint(17, (40, 1, 8, 8), dtype=torch.uint8)
    plain = extractor.features(images, 10)
    with pretend() as there:
        elsewhere = moved(extractor)
        assert torch.equal(elsewhere.features(images, 10), plain)
        assert there.asked == Counter(dict.fromkeys(FEATURES, 4))


def test_only_the_model_s_own_gpu_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training leaves the other GPUs' generators alone, and its own as it was."""
    touched: list[tuple[str, Any]] = []
    model = made(VE(), (2,))

    def noting(what: str) -> Callable[..., Tensor]:
        def note(*given: Any) -> Tensor:
            touched.append((what, given[-1] if given else None))
            return torch.zeros(1)

        return note

    def entered(device: Any) -> Any:
        touched.append(("device", device))
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("get_rng_state", "set_rng_state", "manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, noting(name))
    monkeypatch.setattr(torch.cuda, "device", entered)
    train(model, torch.zeros(8, 2), TrainingConfig(steps=2, batch_size=8), 0)
    assert touched == []
    seed_default_generators(7, torch.device("cuda:1"))
    assert touched == [("device", torch.device("cuda:1")), ("manual_seed", 7)]
    assert torch.initial_seed() == 7

    touched.clear()
    monkeypatch.setattr(default_rng, "_device_of", lambda _: torch.device("cuda:1"))
    assert default_rng.keeps_default_generators(lambda _: torch.manual_seed(3))(model)
    assert [one for one in touched if "rng" in one[0]] == [
        ("get_rng_state", torch.device("cuda:1")),
        ("set_rng_state", torch.device("cuda:1")),
    ]
