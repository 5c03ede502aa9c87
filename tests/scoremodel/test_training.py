"""Training: it repeats to the bit, averages as stated, learns a known score, and says when it fails."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.io.denoisers import load, save
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.networks import unet
from scoremodel.networks.base import build_network
from scoremodel.oracles import GaussianMixture
from scoremodel.parametrisation import Denoise
from scoremodel.precision import Precision
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP, SubVP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from scoremodel.training import loop
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import Trained, _Batches, learning_rate, train
from scoremodel.training.loss import Objective, denoising_weight
from scoremodel.training.schedules import Schedule, schedule_factor
from scoremodel.training.times.log_normal import LogNormal
from scoremodel.training.times.uniform import Stratified

NETWORK = {"kind": "unet", "width": 8, "multipliers": [1, 2], "dropout": 0.1}


def images(count: int = 40) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 17, (count, 1, 8, 8), generator=draw, dtype=torch.uint8)


def train_small(seed: int, steps: int = 6) -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORK, VP(), (1, 8, 8), [0.0], 0.6, 17)
    config = TrainingConfig(steps=steps, batch_size=8, log_every=3, flip=True)
    return train(denoiser, images(), config, seed).denoiser


def digest(denoiser: Denoiser) -> str:
    text = b"".join(v.contiguous().numpy().tobytes() for v in denoiser.state_dict().values())
    return hashlib.sha256(text).hexdigest()


def test_training_repeats_to_the_bit_and_depends_on_its_seed() -> None:
    first = digest(train_small(1))
    torch.rand(5)  # the state of the global generator must not matter
    assert digest(train_small(1)) == first
    assert digest(train_small(2)) != first


def test_batches_go_through_every_epoch_once_in_an_order_of_their_own() -> None:
    cpu = torch.device("cpu")
    batches = _Batches(count=10, batch_size=4, seed=0, device=cpu)
    drawn = torch.cat([batches(step) for step in range(5)]).tolist()  # 20 draws: two epochs
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert _Batches(10, 4, 0, cpu)(3).tolist() == drawn[12:16]  # step 3 does not need steps 0 to 2


def test_without_a_largest_norm_nothing_is_clipped() -> None:
    """Adam's first steps hardly see the gradient's scale, so the limit is far below the norms."""
    made = {norm: trained_with({"dropout": 0.0}, clip_norm=norm) for norm in (1e-6, 1e12, None)}
    assert digest(made[None].denoiser) == digest(made[1e12].denoiser) != digest(made[1e-6].denoiser)
    assert min(point["grad_norm"] for point in made[None].curves) > 1e-2


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    config = TrainingConfig(steps=100, learning_rate=1.0, warmup_steps=4, schedule="cosine")
    half = 0.5 * (1 + math.cos(math.pi * 50 / 100))
    assert learning_rate(0, config) == pytest.approx(1 / 5)
    assert learning_rate(50, config) == pytest.approx(half)
    assert learning_rate(99, config) < 1e-3


def test_the_average_is_ramped_min_d_one_plus_n_over_ten_plus_n() -> None:
    """Two steps: EMA_1 = w_0·d_0 + w_1·(1 − d_0), with d_0 = 1/10 at the first step."""
    torch.manual_seed(0)
    denoiser = Denoiser({"kind": "mlp", "width": 4, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    start = [p.detach().clone() for p in denoiser.parameters()]
    data = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
    config = TrainingConfig(steps=1, batch_size=16, learning_rate=0.1, log_every=1)
    averaged = train(denoiser, data, config, 0).denoiser
    for before, after, mean in zip(
        start, denoiser.parameters(), averaged.parameters(), strict=True
    ):
        torch.testing.assert_close(mean, 0.1 * before + 0.9 * after)


def test_edm_s_ramp_bounds_the_half_life_by_a_share_of_what_was_seen() -> None:
    """β = 2^(−B / min(h, 0.05 t)), t images before the step: 0, ½^20, ½^10 … and at last 2^(−B / h)."""
    config = TrainingConfig(steps=1000, batch_size=512, ema_half_lives=(5e5,), ema_ramp=0.05)
    found = [loop._decay(5e5, step, config) for step in (0, 1, 2, 20, 19_531, 19_532, 10**6)]
    last = 0.5 ** (512 / 5e5)
    assert found == pytest.approx([0, 2**-20, 2**-10, 0.5, last, last, last], rel=1e-6)
    assert found[4] < last == found[5]


class Witness:
    """Keeps the weights that a training goes through."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.weights: list[torch.Tensor] = []

    def begin(self, step: int) -> None:
        self.begun = step

    def point(self, point: Mapping[str, float]) -> None:
        assert point["images_per_second"] > 0

    def asks(self) -> bool:
        return True

    def step(self, step: int, averaged: Denoiser) -> None:
        parameters = [p.detach().flatten() for p in self.denoiser.parameters()]
        self.weights.append(torch.cat(parameters))
        assert self.begun + len(self.weights) == step


@pytest.mark.parametrize("ramp", [None, 0.05])
def test_each_average_forgets_half_in_its_half_life(ramp: float | None) -> None:
    """w̄_n = d w̄_{n−1} + (1 − d) w_n with d = min(2^(−B / h), (1 + n) / (10 + n)), n from 0.

    Or with EDM's ramp, d = 2^(−B / min(h, 0.05 n B)).
    """
    half_lives = (8.0, 64.0, 1e6)
    torch.manual_seed(0)
    denoiser = Denoiser({"kind": "mlp", "width": 4, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    start = torch.cat([p.detach().flatten() for p in denoiser.parameters()])
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    config = TrainingConfig(
        steps=30,
        batch_size=16,
        learning_rate=0.02,
        ema_half_lives=half_lives,
        ema_ramp=ramp,
        log_every=10,
    )
    witness = Witness(denoiser)
    trained = train(denoiser, data, config, 0, observer=witness)
    for half_life in half_lives:
        mean = start
        for n, weights in enumerate(witness.weights):
            decay = min(2 ** (-16 / half_life), (1 + n) / (10 + n))
            if ramp is not None:
                decay = 2 ** (-16 / max(min(half_life, ramp * n * 16), 1e-8))
            mean = decay * mean + (1 - decay) * weights
        averaged = list(trained.averaged[half_life].parameters())
        torch.testing.assert_close(torch.cat([p.flatten() for p in averaged]), mean)
        assert all(p.grad_fn is None for p in averaged)  # which would hold every step's graph


def test_an_average_is_chosen_after_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORK, VP(), (1, 8, 8), [0.0], 0.6, 17)
    config = TrainingConfig(steps=4, batch_size=8, ema_half_lives=(100, 2))
    trained = train(denoiser, images(), config, 0)
    path = tmp_path / "weights.safetensors"
    save(trained.averaged, path, {"of": "both"})
    first, second = load(path), load(path, ema_half_life=2)
    assert first.info == second.info == {"of": "both"}
    assert digest(first) == digest(trained.averaged[100]) == digest(trained.denoiser)
    assert digest(second) == digest(trained.averaged[2]) != digest(first)
    assert (first.ema_half_life, second.ema_half_life) == (100, 2)
    with pytest.raises(ValueError, match="no average with half-life 50, allowed: 100, 2"):
        load(path, ema_half_life=50)
    tensors, stored = read_weights(path)
    write_weights(path, tensors, stored | {"format": 1})
    with pytest.raises(ValueError, match=r"weights of format 1.*allowed: 2; train the model again"):
        load(path)


def trained_with(network: dict[str, Any], **options: Any) -> Trained:
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORK | network, VP(), (1, 8, 8), [0.0], 0.6, 17)
    config = TrainingConfig(steps=4, batch_size=16, log_every=1, learning_rate=1e-3, **options)
    return train(denoiser, images(), config, 0)


def test_accumulated_gradients_are_the_large_batch_s_but_for_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = trained_with({"dropout": 0.0})
    sizes: list[int] = []
    real = loop.score_matching_loss

    def counted(
        objective: Objective, denoise: Denoise, x_0: torch.Tensor, *rest: Any, **needed: Any
    ) -> torch.Tensor:
        sizes.append(len(x_0))
        return real(objective, denoise, x_0, *rest, **needed)

    monkeypatch.setattr(loop, "score_matching_loss", counted)
    parts = trained_with({"dropout": 0.0}, parts=4)
    assert sizes == [4] * 4 * 4
    for point, other in zip(whole.curves, parts.curves, strict=True):
        assert other == pytest.approx(point, rel=1e-4, nan_ok=True)
    for mean, other in zip(whole.denoiser.parameters(), parts.denoiser.parameters(), strict=True):
        torch.testing.assert_close(other, mean, rtol=1e-3, atol=2e-5)
    for options, said in (
        (
            {"parts": 3},
            "parts: 3 is not allowed, allowed: a power of two that divides a batch of 16",
        ),
        ({"parts": 0}, "parts: 0 is not allowed"),
        ({"ema_half_lives": ()}, r"ema_half_lives: \(\) is not allowed"),
        ({"ema_half_lives": (5.0, 0.0)}, r"ema_half_lives: \(5.0, 0.0\) is not allowed"),
    ):
        with pytest.raises(ValueError, match=said):
            trained_with({}, **options)


def test_activation_checkpointing_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout included: what is computed again is computed with the same masks."""
    forwards: list[int] = []
    real = unet._Block.forward

    def counted(self: Any, *inputs: torch.Tensor) -> torch.Tensor:
        forwards.append(1)
        return real(self, *inputs)

    monkeypatch.setattr(unet._Block, "forward", counted)
    network = {"attention_levels": [1]}
    plain = digest(trained_with(network).denoiser)
    once = len(forwards)
    assert digest(trained_with(network | {"checkpointing": True}).denoiser) == plain
    assert len(forwards) - once == 2 * once


def test_bfloat16_is_another_rounding_of_the_same_training() -> None:
    exact, rounded = trained_with({}), trained_with({}, precision="bfloat16")
    losses = [point["loss"] for point in exact.curves]
    assert [point["loss"] for point in rounded.curves] == pytest.approx(losses, rel=0.03)
    assert digest(exact.denoiser) != digest(rounded.denoiser)
    assert {p.dtype for p in rounded.denoiser.parameters()} == {torch.float32}
    assert digest(trained_with({}, precision="bfloat16").denoiser) == digest(rounded.denoiser)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_network_trains_alike(precision: Precision) -> None:
    network = {"dropout": 0.0}
    plain = trained_with(network, precision=precision)
    counters = torch._dynamo.utils.counters["stats"]
    counters.clear()
    compiled = trained_with(network, precision=precision, compile=True)
    assert counters["unique_graphs"] > 0
    tolerance = 1e-3 if precision == "float32" else 0.03
    losses = [point["loss"] for point in plain.curves]
    assert [point["loss"] for point in compiled.curves] == pytest.approx(losses, rel=tolerance)
    assert set(compiled.denoiser.state_dict()) == set(plain.denoiser.state_dict())


def test_data_in_a_memory_mapped_file_train_the_same_model(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images().numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "data.npy", mmap_mode="c"))
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORK, VP(), (1, 8, 8), [0.0], 0.6, 17)
    config = TrainingConfig(steps=6, batch_size=8, log_every=3, flip=True)
    assert digest(train(denoiser, mapped, config, 1).denoiser) == digest(train_small(1))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 1, 1, 1, 1]),
        ("linear", [0.25, 0.9, 0.5, 0.1, 0.01]),
        ("cosine", [0.25, 0.9755283, 0.5, 0.0244717, 0.00024672]),
        ("inverse_sqrt", [0.25, 0.6030227, 0.2800560, 0.2096570, 0.2]),
        ("trapezoid", [0.25, 1, 1, 0.5, 0.05]),
    ],
)
def test_schedules_by_name(schedule: Schedule, expected: list[float]) -> None:
    steps = (0, 10, 50, 90, 99)
    found = [schedule_factor(schedule, step, 100, 3) for step in steps]
    assert found == pytest.approx(expected, rel=1e-5)


def test_edm2_s_learning_rate_decays_from_its_own_reference() -> None:
    """alpha_ref / sqrt(max(t / t_ref, 1)) × min(t / t_warm-up, 1), with EDM2-S's numbers.

    Karras et al. 2024, arXiv:2312.02696, table 6: alpha_ref 0.0100, t_ref 70,000 batches of 2048, and
    10 M images of warm-up. Each of our steps ends where theirs begins.
    """
    warmup = round(10e6 / 2048)
    config = TrainingConfig(
        steps=2**19,
        batch_size=2048,
        learning_rate=0.01,
        schedule="inverse_sqrt",
        warmup_steps=warmup,
        decay_steps=70_000,
    )
    for t, expected in (
        (100, 0.01 * 100 * 2048 / 10e6),
        (warmup, 0.01),
        (70_000, 0.01),
        (280_000, 0.005),
        (437_500, 0.004),
    ):
        assert learning_rate(t - 1, config) == pytest.approx(expected, rel=3e-4)
    with pytest.raises(ValueError, match="decay_steps: 5 is not allowed, allowed: None with sched"):
        TrainingConfig(steps=10, decay_steps=5)


@pytest.mark.parametrize("sde", [VE(0.02, 10.0), VP(), SubVP()], ids=str)
def test_a_trained_denoiser_approaches_the_exact_score_of_a_mixture(sde: VE | VP) -> None:
    """Its excess over the smallest possible loss shrinks to a tenth of the untrained model's.

    The weighting is EDM's, under which every noise level counts alike.
    """
    mixture = GaussianMixture(
        [[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.8, 0.2], dtype=torch.float32
    )
    data, _ = mixture.sample(4000, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    mean, std = data.mean(0), float((data - data.mean(0)).square().mean().sqrt())
    network = {"kind": "mlp", "width": 64, "depth": 2}
    denoiser = Denoiser(network, sde, (2,), mean.tolist(), std)
    draw = torch.Generator().manual_seed(5)
    x_0, _ = mixture.sample(4000, draw)
    t = sde.t_min + (1 - sde.t_min) * torch.rand(4000, generator=draw)
    x_t = sde.perturb(x_0, t, torch.randn(x_0.shape, generator=draw))
    exact = mixture.denoised(x_t, t, sde)
    weight = denoising_weight(t, sde, "edm", std)

    def excess(model: Denoiser) -> float:
        with torch.no_grad():
            return float((weight * (model(x_t, t) - exact).square().mean(1)).mean())

    before = excess(denoiser)
    config = TrainingConfig(
        steps=250,
        batch_size=128,
        learning_rate=5e-3,
        warmup_steps=0,
        ema_half_lives=(4_000,),
        times=Stratified(),
    )
    trained = train(denoiser, data, config, 0)
    assert excess(trained.denoiser) < before / 10
    assert trained.curves[-1]["loss"] < trained.curves[0]["loss"]


def test_a_loss_that_is_not_finite_stops_with_step_and_noise_level() -> None:
    denoiser = Denoiser({"kind": "mlp", "width": 8, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    data = torch.full((8, 2), torch.inf)
    with pytest.raises(
        FloatingPointError,
        match=r"loss of step 1 at t = .*, learning rate 1\.98e-05, found after step 2",
    ):
        train(denoiser, data, TrainingConfig(steps=2, batch_size=8, log_every=2), 0)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (13, 9)])
def test_the_unet_follows_any_size_and_number_of_channels(size: tuple[int, int]) -> None:
    """Every output pixel depends on its input: the Jacobian of the sum is nowhere zero."""
    network = build_network(
        {"kind": "unet", "width": 8, "multipliers": [1, 2, 2], "attention_levels": [2]}, (3, *size)
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, *size, requires_grad=True)
    out = network(x, torch.zeros(2))
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.shape == x.shape
    assert bool((gradient != 0).all())


def test_a_network_that_does_not_fit_the_data_is_named() -> None:
    with pytest.raises(ValueError, match=r"'mlp' does not fit data of shape \(1, 8, 8\)"):
        build_network({"kind": "mlp"}, (1, 8, 8))


def test_saved_weights_come_back_to_the_bit_with_their_configuration(tmp_path: Path) -> None:
    denoiser = train_small(0, steps=3)
    save(denoiser, tmp_path / "a.safetensors", {"seed": 0})
    save(denoiser, tmp_path / "b.safetensors", {"seed": 0})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = load(tmp_path / "a.safetensors")
    assert again.config() == denoiser.config()
    assert again.info == {"seed": 0}
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.3)
    assert torch.equal(again(x, t), denoiser(x, t))


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    save(train_small(0, steps=1), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.safetensors: damaged"):
        load(tmp_path / "cut.safetensors")


def test_a_class_conditional_model_learns_its_classes_and_what_no_class_means(
    tmp_path: Path,
) -> None:
    """Two modes, one class each: asked for, a class comes; asked for none, both come."""
    mixture = GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.7, 0.3], torch.float32)
    data, labels = mixture.sample(2000, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    mean, std = data.mean(0), float((data - data.mean(0)).square().mean().sqrt())
    network = {"kind": "mlp", "width": 64, "depth": 2}
    denoiser = Denoiser(network, VP(), (2,), mean.tolist(), std, classes=2)
    config = TrainingConfig(
        steps=250,
        learning_rate=5e-3,
        schedule="cosine",
        ema_half_lives=(4_000,),
        times=LogNormal(),
        weighting="edm",
        label_dropout=0.2,
    )
    averaged = train(denoiser, data, config, 0, labels=labels).denoiser
    save(averaged, tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors")
    count = 500
    for label in (0, 1):
        asked = torch.full((count,), label)
        x = sample(model, Heun(12), count, 0, labels=asked, batch_size=count).x
        assert float(((x.sum(1) > 0).long() == label).float().mean()) > 0.99
    x = sample(model, Heun(12), count, 0, batch_size=count).x
    share = float((x.sum(1) < 0).float().mean())
    assert abs(share - 0.7) < 4 * (0.21 / count) ** 0.5 + 0.05


@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        (2, None, "a model of 2 classes do not fit no labels"),
        (None, torch.zeros(8), r"a model of no classes do not fit labels of shape \(8,\)"),
        (2, torch.zeros(7), r"labels of shape \(7,\)"),
        (2, torch.full((8,), 2), "labels must be from 0 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    classes: int | None, labels: torch.Tensor | None, words: str
) -> None:
    network = {"kind": "mlp", "width": 8, "depth": 1}
    denoiser = Denoiser(network, VP(), (2,), [0.0, 0.0], 1.0, classes=classes)
    with pytest.raises(ValueError, match=words):
        train(denoiser, torch.zeros(8, 2), TrainingConfig(steps=1), 0, labels=labels)


def test_data_of_another_shape_are_named() -> None:
    denoiser = Denoiser({"kind": "mlp", "width": 8, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    with pytest.raises(ValueError, match=r"shape \(8, 3\) do not fit a model of \(2,\)"):
        train(denoiser, torch.zeros(8, 3), TrainingConfig(steps=1), 0)


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    denoiser = Denoiser({"kind": "mlp", "width": 8, "depth": 1}, VP(), (2,), [0.0, 0.0], 1.0)
    torch.set_rng_state(before)
    train(denoiser, torch.zeros(8, 2), TrainingConfig(steps=2, batch_size=8), 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16"},
        {"parts": 4},
        {"checkpointing": True},
        {"objective": "sliced", "parts": 4, "checkpointing": True},
    ],
    ids=lambda options: ", ".join(options),
)
def test_an_energy_s_second_derivatives_survive_every_option(options: dict[str, Any]) -> None:
    """Three steps end where plain float32 ends, up to rounding, also under a third derivative."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(17, (64, 1, 6, 6), dtype=torch.uint8, generator=draw)
    given = dict(options)
    checkpointing = given.pop("checkpointing", False)

    def after(checkpointing: bool, **given: Any) -> torch.Tensor:
        network = {
            "kind": "unet",
            "width": 8,
            "multipliers": [1, 2],
            "attention_levels": [1],
            "checkpointing": checkpointing,
        }
        torch.manual_seed(0)
        denoiser = Denoiser(network, VP(), (1, 6, 6), [0.0], 0.6, 17, energy=True)
        for weight in denoiser.parameters():  # or the first gradients would be zero
            torch.nn.init.normal_(weight, std=0.1)
        config = TrainingConfig(steps=3, batch_size=32, learning_rate=1e-3, **given)
        trained = train(denoiser, pixels, config, 0).denoiser
        return torch.cat([weight.flatten() for weight in trained.parameters()])

    plain = after(False, **({"objective": "sliced"} if "objective" in given else {}))
    other = after(checkpointing, **given)
    moved = (other - plain).norm() / plain.norm()
    assert float(moved) < (2e-2 if "precision" in given else 1e-5)


def test_what_has_second_derivatives_is_not_compiled() -> None:
    with pytest.raises(ValueError, match="objective 'sliced' has second derivatives"):
        TrainingConfig(steps=1, compile=True, objective="sliced")
    energy = Denoiser({"kind": "mlp"}, VP(), (2,), [0.0, 0.0], 1.0, energy=True)
    with pytest.raises(ValueError, match="an energy's loss has second derivatives"):
        train(energy, torch.zeros(4, 2), TrainingConfig(steps=1, compile=True), 0)
