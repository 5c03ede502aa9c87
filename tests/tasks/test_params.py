"""Every mistake in params.yaml gets one line: file, dotted key, value, and what is allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from scoremodel.loss import Weighting
from scoremodel.samplers import GRIDS, SAMPLERS
from scoremodel.sde import SDES
from scoremodel.training import TrainingConfig
from tasks.params import VE, VP, ParamsError, Sampler, Training, load_params
from tests.workspace import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()


def changed(folder: Path, old: str, new: str) -> Path:
    assert old in SHIPPED, old
    path = folder / "params.yaml"
    path.write_text(SHIPPED.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seed: 0 ", "sed: 0 ", "sed: unknown key, allowed: seed, threads, device, active, "),
        ("sigma_min: 0.02", "sigma_min: 200", "models.ve.sde.sigma_max: 100.0 is not allowed, "
         "allowed: a number greater than sigma_min (200)"),
        ("samplers: [heun, euler_maruyama]", "samplers: heun",
         "active.samplers: 'heun' is not allowed, allowed: list"),
        ("count: 448", "count: -5",
         "evaluation.count: -5 is not allowed, allowed: greater than or equal to 2"),
        ("kind: heun, steps: 18", "kind: hein, steps: 18",
         "samplers.heun.kind: 'hein' is not allowed, allowed: 'euler_maruyama', 'euler' or 'heun'"),
        ("kind: ve,", "kind: vee,", "allowed: kind 've', 'vp', 'subvp'"),
        ("kind: ve, ", "", "models.ve.sde: missing key: kind"),
        ("datasets: [digits]", "datasets: [nope]",
         "active.datasets[0]: 'nope' is not allowed, allowed: one of: cifar10, digits, "),
        ("width: 16", "width: 3.5",
         "models.ve.network.unet.width: 3.5 is not allowed, allowed: integer"),
        ("learning_rate: 2.0e-3", "learning_rate: fast",
         "models.ve.training.learning_rate: 'fast' is not allowed, allowed: number"),
        ("threads: 2", "threads: true", "threads: True is not allowed, allowed: integer"),
        ("device: auto", "device: gpu",
         "device: 'gpu' is not allowed, allowed: 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'"),
        ("train_seeds: [0]", "train_seeds: [0, 0]",
         "active.train_seeds: [0, 0] is not allowed, allowed: a list without repetitions"),
        ("attention_levels: []", "attention_levels: [2]",
         "attention_levels: [2] is not allowed, allowed: levels from 0 to 1"),
        ("  heun_9:", "  heun-9:", "samplers.heun-9: 'heun-9' is not allowed, allowed: lower-case"),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ParamsError) as error:
        load_params(path)
    (said,) = str(error.value).splitlines()
    assert said.startswith(f"{path}: ")
    assert line in said


def test_two_mistakes_get_two_lines(tmp_path: Path) -> None:
    path = changed(tmp_path, "threads: 2 ", "threads: two ")
    path.write_text(path.read_text().replace("count: 448", "count: x"))
    with pytest.raises(ParamsError) as error:
        load_params(path)
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "threads",
        "evaluation.count",
    ]


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = changed(tmp_path, "datasets: [digits]", "datasets: [digits")
    with pytest.raises(ParamsError, match=r"params\.yaml, line \d+: not valid YAML"):
        load_params(path)


def test_a_number_as_dvc_writes_it_is_a_number(tmp_path: Path) -> None:
    params = load_params(changed(tmp_path, "learning_rate: 2.0e-3", "learning_rate: 1e-05"))
    assert params.models["ve"].training.learning_rate == 1e-5


def test_ve_and_vp_differ_in_their_sde_block_only() -> None:
    models = load_params(ROOT / "params.yaml").models
    assert models["ve"].network == models["vp"].network
    assert models["ve"].training == models["vp"].training
    assert models["ve"].sde != models["vp"].sde


def test_the_schema_allows_what_the_library_has() -> None:
    def named(model: type, field: str) -> set[str]:
        return set(get_args(model.model_fields[field].annotation))  # type: ignore[attr-defined]

    assert named(Sampler, "kind") <= set(SAMPLERS)
    assert named(Sampler, "grid") == set(GRIDS)
    assert named(Training, "weighting") == set(get_args(Weighting))
    assert named(VE, "kind") | named(VP, "kind") <= set(SDES)
    fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    assert set(Training.model_fields) == fields
