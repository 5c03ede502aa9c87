"""`python -m tasks.results effects`: effects from records, or one line that says what is missing."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scoremodel.processes.base import process_from_config
from tasks.params import presets
from tasks.results.__main__ import main
from tasks.results.effects import FACTORS, Factor, effects_of
from tests.workspace import ROOT

MODELS = ("ve", "vp", "ve_2021", "vp_2021")
SAMPLERS = ("heun", "euler_maruyama")


def distance(model: str, sampler: str, seed: int) -> float:
    """Return 2 + SDE's effect 0.1, recipe's 0.6, sampler's 0, SDE × sampler's −0.4, and a block's shift."""
    vp, published, noise = "vp" in model, "2021" in model, sampler == "euler_maruyama"
    sde, recipe, path = (1 if high else -1 for high in (vp, published, noise))
    own = {0: 0.0, 1: 0.02, 2: -0.02}[seed]  # of this block's effect of the recipe
    return 2 + 5 * seed + 0.05 * sde + (0.3 + own) * recipe - 0.2 * sde * path


def record(model: str, sampler: str, seed: int, **more: Any) -> dict[str, Any]:
    value = distance(model, sampler, seed)
    return {
        "dataset": "digits",
        "data_sha256": "d" * 64,
        "model": model,
        "sampler": sampler,
        "train_seed": seed,
        "metric": "FD (classifier 0123abcd)",
        "count": 448,
        "sampling_seeds": [0, 1, 2],
        "held_out": {"mean": value, "std": 0.5, "by_seed": [value - 0.5, value, value + 0.5]},
        "train": {"mean": value, "std": 0.5, "by_seed": [value - 0.5, value, value + 0.5]},
        "floor": {"value": 0.5, "std": None, "count": 448},
        "ratio_to_floor": value / 0.5,
        "nfe": 35,
        "environment": {},
        **more,
    }


def factorial(seeds: tuple[int, ...] = (0, 1, 2)) -> list[dict[str, Any]]:
    return [record(*cell) for cell in product(MODELS, SAMPLERS, seeds)]


def table(text: str) -> dict[str, list[str]]:
    """Return the cells of each row by the effect's name."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return the command in a folder with the factorial's record files, and one that is none of it."""
    monkeypatch.chdir(tmp_path)
    records = tmp_path / "results/records"
    records.mkdir(parents=True)
    for one in [*factorial(), record("vp", "heun", 0) | {"model": "vp_energy", "count": 8}]:
        name = f"{one['dataset']}-{one['model']}-{one['train_seed']}-{one['sampler']}"
        (records / f"{name}.json").write_text(json.dumps(one))

    def run(*arguments: str) -> str:
        main(["effects", *arguments])
        return capsys.readouterr().out

    return run


def test_the_default_factors_are_the_preset_s() -> None:
    chosen = presets.laid_over("factorial", ROOT / "params.yaml").active
    parsed = [Factor.parse(text) for text in FACTORS]
    sides = [frozenset.union(*factor.levels) for factor in parsed]
    assert sides == [set(MODELS), set(MODELS), set(SAMPLERS)]
    assert (chosen.models, chosen.samplers) == (list(MODELS), list(SAMPLERS))
    assert len(chosen.train_seeds) >= 3


def test_a_recipe_s_models_differ_in_the_sde_alone_and_the_sdes_are_song_s() -> None:
    """Song et al. 2021, appendix C: σ from 0.01 to 50 for data in [0, 1], β from 0.1 to 20."""
    models = presets.laid_over("factorial", ROOT / "params.yaml").models
    said = {name: models[name].model_dump() for name in MODELS}
    sde = {name: process_from_config(said[name].pop("sde")) for name in MODELS}
    assert sde["ve"] == sde["ve_2021"]
    assert sde["vp"] == sde["vp_2021"]
    assert (sde["ve"].config()["sigma_min"], sde["ve"].config()["sigma_max"]) == (0.01 * 2, 50 * 2)
    assert (sde["vp"].config()["beta_min"], sde["vp"].config()["beta_max"]) == (0.1, 20)
    assert said["ve"] == said["vp"]
    assert said["ve_2021"] == said["vp_2021"]
    for name in ("ve", "ve_2021"):
        recipe = {key: said[name]["training"].pop(key) for key in ("times", "weighting")}
        recipe["preconditioning"] = said[name].pop("preconditioning")
        expected = ("edm", "edm", "log_normal") if name == "ve" else ("noise", "sigma2", "uniform")
        assert (
            recipe["preconditioning"],
            recipe["weighting"],
            recipe["times"]["kind"],
        ) == expected
    assert said["ve"] == said["ve_2021"]  # the same network, steps and learning rate


def test_effects_are_those_planted_in_the_records(here: Callable[..., str]) -> None:
    text = here()
    assert text.startswith(
        "digits, FD (classifier 0123abcd), N = 448, over 3 training seeds × 3 sampling seeds: the "
        "methods, on these held-out data; the floor is 0.5. Each factor from its first level to its "
        "second: sde=ve,ve_2021/vp,vp_2021;"
    )
    found = table(text)
    assert list(found) == [
        "sde",
        "recipe",
        "sampler",
        "sde × recipe",
        "sde × sampler",
        "recipe × sampler",
    ]
    half = stats.t.ppf(0.975, 2) * 0.04 / np.sqrt(3)  # contrasts 0.6, 0.64 and 0.56
    assert found["recipe"][:3] == [
        "+0.600",
        f"[{0.6 - half:+.3f}, {0.6 + half:+.3f}]",
        "+1.20",
    ]
    p = 2 * stats.t.sf(0.6 / (0.04 / np.sqrt(3)), 2)
    others = 2  # effects without any spread are certain, and come first
    assert found["recipe"][3] == f"{(6 - others) * p:.2g}"
    assert (found["sde"][0], found["sde × sampler"][0]) == ("+0.1000", "-0.4000")
    assert found["sampler"][0].lstrip("+-") == "0.0000"
    narrow = re.search(r"\| 80 % interval", here("--level", "0.8"))
    assert narrow


def test_factors_of_one_s_own_have_a_table_of_their_own(here: Callable[..., str]) -> None:
    found = table(here("--factor", "process=ve/vp", "--factor", "method=heun/euler_maruyama"))
    assert list(found) == ["process", "method", "process × method"]
    assert (found["process"][0], found["process × method"][0]) == ("+0.1000", "-0.4000")


def test_a_revision_s_records_are_read(here: Callable[..., str], tmp_path: Path) -> None:
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    now = here()
    for path in (tmp_path / "results/records").glob("*.json"):
        path.unlink()
    assert here("HEAD") == now
    with pytest.raises(ValueError, match="workspace: has no records"):
        here()


def test_one_training_seed_s_blocks_are_its_sampling_seeds() -> None:
    records = factorial((1,))
    for one in records:  # the recipe's effect is 0.1 larger with each sampling seed
        sign = 1 if "2021" in one["model"] else -1
        one["held_out"]["by_seed"] = [
            value + sign * 0.05 * seed for seed, value in enumerate(one["held_out"]["by_seed"])
        ]
    text = effects_of(records)
    assert "over 1 training seed × 3 sampling seeds: these checkpoints only" in text
    assert table(text)["recipe"][0] == "+0.74"  # 0.64 + 0.1 · mean of 0, 1, 2
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert table(text)["recipe"][1] == f"[{0.74 - half:+.2f}, {0.74 + half:+.2f}]"


def without(model: str, sampler: str, seed: int) -> list[dict[str, Any]]:
    gone = (model, sampler, seed)
    return [r for r in factorial() if (r["model"], r["sampler"], r["train_seed"]) != gone]


@pytest.mark.parametrize(
    ("records", "factors", "said"),
    [
        (without("vp_2021", "heun", 2), FACTORS,
         r"digits: no record of vp_2021, heun, training seed 2; each training seed must have all 8 "),
        ([r for r in factorial() if r["model"] != "ve_2021"], FACTORS,
         "no record of ve_2021, heun, training seed 0 and 5 more; "),
        ([record("vp_energy", "heun", 0), record("vp_sliced", "heun", 0)], FACTORS,
         "sde: must be of models or of samplers that have records, there are: models vp_energy, "),
        ([*without("ve", "heun", 0), record("ve", "heun", 0, count=100)], FACTORS,
         r"cannot be compared, .* of 100 samples .* and .* of 448 samples"),
        ([record(*cell, 0, sampling_seeds=[0], held_out={"by_seed": [1.0]})
          for cell in product(MODELS, SAMPLERS)], FACTORS,
         "one sampling seed, effects take two"),
        (factorial(), ["sde=ve,ve_2021/vp,vp_2021"],
         "a cell must have one model, sde=ve,ve_2021 has ve, ve_2021"),
        (factorial(), ["sde=ve/vp"],
         "a cell must have one sampler, sde=ve has euler_maruyama, heun"),
        (factorial(), [*FACTORS[:2], FACTORS[0]], "sde, recipe, sde: two have the same name"),
        (factorial(), ["sde=ve"], r"--factor: 'sde=ve' is not allowed, allowed: NAME=LOW,…/HIGH,…"),
        (factorial(), ["sde=ve/ve,vp"], "'sde=ve/ve,vp' is not allowed"),
        (factorial(), ["sampler=heun/vp"], "sampler: must be of models or of samplers"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_said_in_one_line(
    records: list[dict[str, Any]], factors: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        effects_of(records, factors)
    assert "\n" not in str(caught.value)


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--level: 95 is not allowed"):
        effects_of(factorial(), level=95)
