"""What a configuration will cost is said before it begins, and what is said is what happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import Gaussian
from scoremodel.processes.base import PROCESSES, process_from_config
from scoremodel.processes.ncsn import NCSN
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.sampling import sample
from tasks.params import survey
from tasks.params.cost import Cost, guessed_levels, lines, measured_rates, rate_of
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
