"""What a configuration will cost is said before it begins, and what is said is what happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.networks.base import build_network
from scoremodel.oracles import Gaussian
from scoremodel.processes.base import PROCESSES, process_from_config
from scoremodel.processes.ncsn import NCSN
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.sampling import sample
from tasks.params import survey
from tasks.params.cost import (
    Cost,
    guessed_levels,
    lines,
    measured_rates,
    measured_trainings,
    rate_of,
)
from tasks.params.load import checked, read_yaml
from tasks.params.memory import size_of
from tasks.params.survey import Survey
from tasks.sample import build_sampler
from tests.workspace import ROOT


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


BLOCKS: dict[str, Any] = checked(read_yaml(ROOT / "params.yaml"), Path("params.yaml")).model_dump(
    exclude_unset=True
)["samplers"]


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"runge_kutta"}))
@pytest.mark.parametrize("kind", ["ve", "ddpm"])
def test_the_calls_that_are_said_are_those_that_are_made(name: str, kind: str) -> None:
    """Counted by `sample`, for every shipped block."""
    block = BLOCKS[name] | ({"steps": 7} if "steps" in BLOCKS[name] else {})
    sampler, process = build_sampler(block), process_from_config({"kind": kind})
    try:
        plan = sampler.plan(process)
    except ValueError:  # of SDEs only
        return
    oracle = Gaussian(torch.zeros(2), torch.eye(2))
    drawn = sample(
        lambda x, t: oracle.denoised(x, t, process), sampler, 1, 0, process=process, shape=(2,)
    )
    assert sampler.calls(plan) == drawn.nfe


def test_every_kind_of_sampler_says_its_calls() -> None:
    """An adaptive one says that they are not known."""
    assert {block["kind"] for block in BLOCKS.values()} == set(SAMPLERS)
    sampler = build_sampler(BLOCKS["runge_kutta"])
    assert sampler.calls(sampler.plan(PROCESSES["ve"]())) is None


@pytest.mark.parametrize(
    ("network", "shape", "classes"),
    [
        (
            {"kind": "unet", "width": 8, "multipliers": [1, 2], "attention_levels": [1]},
            (3, 9, 7),
            None,
        ),
        ({"kind": "unet", "width": 16, "multipliers": [1, 4]}, (1, 8, 8), 10),
        (
            {"kind": "edm2", "width": 8, "multipliers": [1, 2], "attention_resolutions": []},
            (1, 8, 8),
            3,
        ),
        ({"kind": "mlp", "width": 32, "depth": 2}, (2,), 3),
    ],
)
def test_the_size_is_the_network_s(
    network: dict[str, Any], shape: tuple[int, ...], classes: Any
) -> None:
    size = size_of(network, shape, classes)
    assert size is not None
    made = Denoiser(network, PROCESSES["ve"](), shape, [0.0] * shape[0], 1.0, classes=classes)
    assert size.parameters == sum(weight.numel() for weight in made.parameters())
    put_out = 0

    def note(_: Any, __: Any, out: torch.Tensor) -> None:
        nonlocal put_out
        put_out += out.numel()

    for layer in made.modules():
        if not list(layer.children()):
            layer.register_forward_hook(note)
    made(torch.zeros(1, *shape), torch.full((1,), 0.5))
    assert size.activations == put_out


def test_the_products_of_an_mlp_are_its_matrices() -> None:
    """Written out: in, two layers of the embedding, three matrices of each block, out."""
    size = size_of({"kind": "mlp", "width": 32, "depth": 2}, (2,))
    assert size is not None
    assert size.products == 2 * 32 + (32 * 32 + 32 * 32) + 2 * (32 * 64 + 2 * 32 * 32) + 32 * 2


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "unet", "width": 8, "multipliers": [1, 2], "attention_levels": [1]},
        {"kind": "ncsnpp", "width": 8, "multipliers": [1, 2], "attention_resolutions": [8]},
        {"kind": "edm2", "width": 16, "multipliers": [1, 2], "attention_resolutions": [8]},
        {"kind": "adm", "width": 64, "multipliers": [1, 2], "attention_resolutions": [8]},
    ],
    ids=lambda network: network["kind"],
)
def test_the_products_are_those_that_torch_counts(network: dict[str, Any]) -> None:
    """Attention's and those of functions that are no layers too."""
    from torch.utils.flop_counter import FlopCounterMode

    size = size_of(network, (3, 16, 16), 10)
    assert size is not None
    made = build_network(network, (3, 16, 16), 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert size.products == counter.get_total_flops() / 2


def test_a_training_is_said_before_it_begins(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of its parts, by hand."""
    monkeypatch.setattr(survey, "measured_trainings", lambda *_: {})
    raw["active"] |= {"models": ["ve"], "train_seeds": [0, 1, 2]}
    raw["models"]["ve"]["training"] = {"steps": 10**6, "batch_size": 128, "ema_stds": [0.1]}
    size = size_of({"kind": "unet", "width": 32, "multipliers": [1, 2]}, (1, 8, 8))
    assert size is not None
    flops = 3 * 2 * size.products * 128e6
    weights = 4 * size.parameters
    # Samples, seeds, samplers; bytes and the features of three judges.
    drawn = 448 * 12 * 2 * (64 + 4 * 3 * 64)
    surveyed = Survey(checked(raw, Path("params.yaml")))
    (line,) = surveyed.training_lines()
    assert line.startswith(
        f"digits: ve: 3 trainings of {size.parameters / 1e6:.2f} M parameters, 128 M images, an "
        f"estimated {flops:.1e} FLOP, about ".replace("e+", "e")
    )
    assert f"about {flops / 1e14:.0f} s at 100 TFLOP/s; memory " in line
    disk = 3 * (2 * weights + drawn)
    assert f"disk {disk / 1e6:.3g} MB, and {2 * 5 * weights / 1e6:.3g} MB of checkpoints" in line
    (slower,) = surveyed.training_lines(nominal=0.5)
    assert f"about {flops / 0.5e12 / 3600:.2g} h at 0.5 TFLOP/s" in slower
    monkeypatch.setattr(survey, "measured_trainings", lambda *_: {("digits", "ve", ""): 4e-4})
    (measured,) = surveyed.training_lines()
    # 128 M times 0.4 ms
    assert f"about 14 h on this machine or {flops / 1e14:.0f} s at 100 TFLOP/s" in measured


def test_langevin_with_many_levels_is_said_before_it_begins(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "measured_rates", lambda *_: {("digits", "ve", "heun"): 2e-4})
    raw["active"] |= {"models": ["ve"], "samplers": ["heun", "langevin", "euler_maruyama"]}
    found = Survey(checked(raw, Path("params.yaml"))).cost_lines()
    # 1,000 steps and the last denoising one; 448 samples of 12 seeds; times 0.2 ms
    assert found[0] == (
        True,
        "digits: ve × langevin: 1,001 network calls a sample, 5.38 M for 5,376 samples, "
        "about 18 min on this machine: 14.8 times the others' median",  # (35 + 100) / 2 calls
    )
    assert [loud for loud, _ in found] == [True, False, False]
    assert "heun: 35 network calls a sample, 188 k for 5,376 samples, about 38 s" in found[2][1]
    raw["active"]["samplers"] = ["langevin"]
    ((loud, line),) = Survey(checked(raw, Path("params.yaml"))).cost_lines()
    assert not loud  # less than an hour, and nothing to compare it with
    assert "about 18 min" in line
    monkeypatch.setattr(survey, "measured_rates", lambda *_: {("digits", "ve", "langevin"): 1e-3})
    ((loud, line),) = Survey(checked(raw, Path("params.yaml"))).cost_lines()
    assert loud  # 5.38 M times 1 ms
    assert "about 90 min" in line


def test_guidance_takes_two_calls_and_training_seeds_as_many_samples(raw: Any) -> None:
    raw["active"] |= {
        "models": ["vp_classes"], "samplers": ["heun_guided", "runge_kutta"], "train_seeds": [0, 1]
    }  # fmt: skip
    guided, adaptive = (line for _, line in Survey(checked(raw, Path("params.yaml"))).cost_lines())
    assert "heun_guided: 70 network calls a sample, 753 k for 10,752 samples" in guided
    assert "runge_kutta: as many network calls as its tolerances take" in adaptive


def test_a_ladder_that_follows_from_the_data_is_guessed() -> None:
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data).float() / 8 - 1
    true = NCSN.from_data(x)
    guess = guessed_levels(
        {"kind": "ncsn", "sigma_min": 0.02, "sigma_max": None, "levels": None},
        {"shape": [1, 8, 8], "std": float(x.std())},
    )
    assert guess == pytest.approx(true.levels, rel=0.1)


def test_more_than_eight_are_counted() -> None:
    costs = [Cost("d", "m", f"s{n}", n, 100) for n in range(1, 13)]
    found = [line for _, line in lines(costs)]
    assert len(found) == 9
    assert found[0].startswith("d: m × s12: 12 network calls a sample, 1.2 k for 100 samples")
    assert found[-1] == "and 4 more"


def row(configuration: str, device: str, seconds: float, recorded: str | None) -> str:
    return json.dumps(
        {
            "configuration": configuration, "recorded": recorded, "values": {"nfe": 35},
            "seconds": {"sample": {"device": device, "seconds_per_1000": seconds}},
        }
    )  # fmt: skip


def test_a_rate_is_the_newest_of_this_machine_and_else_goes_with_the_network(
    tmp_path: Path,
) -> None:
    rows = [
        row("digits-ve-0-heun", "cpu A", 7.0, None),
        row("digits-ve-1-heun", "cpu A", 14.0, "2026-11-28"),
        row("digits-ve-0-heun", "cpu A", 21.0, "2026-11-27"),
        row("digits-ve-0-heun", "cpu B", 700.0, "2026-11-29"),
        "{", "[]", '{"seconds": {}}', row("digits-vp-0-heun", "cpu A", float("nan"), "2026"),
    ]  # fmt: skip
    for number, text in enumerate(rows):
        (tmp_path / f"{number}.json").write_text(text)
    rates = measured_rates("cpu A", tmp_path)
    assert rates == {("digits", "ve", "heun"): pytest.approx(14.0 / 1000 / 35)}
    products = {"ve": 100, "wide": 400}

    def said(model: str, sampler: str) -> float | None:
        return rate_of(("digits", model, sampler), rates, lambda _, model: products.get(model))

    assert said("ve", "heun") == said("ve", "euler") == pytest.approx(14.0 / 1000 / 35)
    assert said("wide", "heun") == pytest.approx(4 * 14.0 / 1000 / 35)
    assert said("other", "heun") is None


def test_a_training_s_rate_is_read_from_both_kinds_of_rows(tmp_path: Path) -> None:
    training = {"training": {"steps": 100, "batch_size": 50}}
    for number, params in enumerate(
        (
            {"train@digits-old-0": {"models.old": training}},
            {"train@digits-new-0": {"cmd": "…"}, "resolved": {"models.new": training}},
        )
    ):
        name = ("old", "new")[number]
        text = {
            "configuration": f"digits-{name}-0-heun", "inputs": {"params": params},
            "seconds": {"train": {"device": "cpu A", "seconds": 10.0 + number}},
        }  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(text))
    assert measured_trainings("cpu A", tmp_path) == {
        ("digits", "old", ""): 10 / 5000,
        ("digits", "new", ""): 11 / 5000,
    }
    assert measured_trainings("cpu B", tmp_path) == {}
