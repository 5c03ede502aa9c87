"""Every mistake in params.yaml gets one line: file, dotted key, value, and what is allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
from tasks.process import build_process
from tasks.sampler import build_sampler

from scoremodel.denoiser import Preconditioning
from scoremodel.inverse import Method
from scoremodel.processes.chain import CHAINS
from scoremodel.processes.sde import SDE, SDES
from scoremodel.samplers import GRIDS, SAMPLERS
from scoremodel.training.loop import TrainingConfig
from scoremodel.training.loss import Objective, Weighting
from scoremodel.training.times import TIMES
from tasks import params
from tasks.params import ParamsError, load_params
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
        ("seed: 0 ", "sed: 0 ", "sed: unknown key, allowed: seed, threads, device, tf32, "
         "deterministic, checkpoints, watch, active, "),
        ("accumulate: 1", "accumulate: 3", "models.ve.training.accumulate: 3 is not allowed, "
         "allowed: a divisor of batch_size (64)"),
        ("precision: auto", "precision: float16", "models.ve.training.precision: 'float16' is not "
         "allowed, allowed: 'auto', 'float32' or 'bfloat16'"),
        ("ema_half_lives: [50000]", "ema_half_lives: []", "models.ve.training.ema_half_lives: [] is "
         "not allowed, allowed: List should have at least 1 item"),
        ("heun: {kind: heun,", "heun: {kind: heun, ema_half_life: 7,",
         "samplers.heun.ema_half_life: 7.0 is not allowed, allowed: null, 50000: what the active "
         "model 've' keeps (training.ema_half_lives)"),
        ("sigma_min: 0.02", "sigma_min: 200", "models.ve.sde.sigma_max: 100.0 is not allowed, "
         "allowed: a number greater than sigma_min (200)"),
        ("samplers: [heun, euler_maruyama]", "samplers: heun",
         "active.samplers: 'heun' is not allowed, allowed: list"),
        ("count: 448", "count: -5",
         "evaluation.count: -5 is not allowed, allowed: greater than or equal to 8"),
        ("kind: heun, steps: 18", "kind: hein, steps: 18",
         "samplers.heun.kind: 'hein' is not allowed, allowed: 'euler_maruyama', "),
        ("kind: ve,", "kind: vee,", "models.ve.sde.kind: 'vee' is not allowed, "
         "allowed: 've', 'vp', 'subvp', 'vp_cosine', 'ncsn', 'ddpm'"),
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
        ("variance: posterior}", "eta: 0.5}",
         "samplers.ancestral.eta: unknown key, allowed: kind, guidance, path, ema_half_life, steps, "
         "grid, variance"),
        ("eta: 0.5", "eta: 1.5", "samplers.ddim.eta: 1.5 is not allowed, allowed: less than or equal"),
        ("mean: -1.2, std: 1.2}", "mean: 0, std: 0}",
         "models.ve.training.times.std: 0 is not allowed, allowed: greater than 0"),
        ("kind: log_normal, mean: -1.2, ", "kind: stratified, ",
         "models.ve.training.times.std: unknown key, allowed: kind"),
        ("levels: 1000", "levels: 1", "models.ddpm.sde.levels: 1 is not allowed"),
        ("beta_first: 1.0e-4", "beta_first: 0.5",
         "models.ddpm.sde.beta_last: 0.02 is not allowed, allowed: a number greater than beta_first"),
        ("samplers: [heun, ", "samplers: [heun_guided, ",
         "samplers.heun_guided.guidance: 2.0 is not allowed, allowed: 1.0 for the active model 've'"),
        ("eta: 0.5}", "eta: 0.5, path: {kind: vp, beta_min: 1.0, beta_max: 0.5}}",
         "samplers.ddim.path.beta_max: 0.5 is not allowed, allowed: a number greater than beta_min"),
        ("eta: 0.5}", "eta: 0.5, path: {kind: vp, beta: 0.5}}",
         "samplers.ddim.path.beta: unknown key, allowed: kind, beta_min, beta_max"),
        ("sigma_max: 100.0}}", "sigma_max: null}}", "samplers.heun_on_ve.path.sigma_max: None is not"),
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
    given = load_params(changed(tmp_path, "learning_rate: 2.0e-3", "learning_rate: 1e-05"))
    assert given.models["ve"].training.learning_rate == 1e-5


def test_ve_and_vp_differ_in_their_sde_block_only() -> None:
    models = load_params(ROOT / "params.yaml").models
    assert models["ve"].network == models["vp"].network
    assert models["ve"].training == models["vp"].training
    assert models["ve"].sde != models["vp"].sde


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("weighting: edm", "weighting: likelihood", "training.weighting: 'likelihood' is not"),
        (
            "{kind: log_normal, mean: -1.2, std: 1.2}",
            "{kind: importance}",
            "training.times.kind: 'importance' is not",
        ),
    ],
)
def test_what_a_chain_has_not_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "params.yaml"
    before, chain = SHIPPED.split("  ncsn:\n", 1)
    path.write_text(f"{before}  ncsn:\n{chain.replace(old, new, 1)}")
    with pytest.raises(ParamsError, match=rf"models\.ncsn\.{words}.*no g\(t\) for a chain"):
        load_params(path)


def choices(annotation: Any) -> list[Any]:
    """Return the models of a union, Annotated or not."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return list(get_args(annotation))


def named(model: type, field: str) -> set[str]:
    return set(get_args(model.model_fields[field].annotation))  # type: ignore[attr-defined]


def fields(cls: type) -> dict[str, Any]:
    """Return a dataclass's arguments with their defaults."""
    if not dataclasses.is_dataclass(cls):
        return {}
    return {field.name: field.default for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    ("models", "library", "extra"),
    [
        (choices(params.Sampler), SAMPLERS, {"guidance", "path", "ema_half_life"}),
        (choices(params.Process), SDES | CHAINS, set()),
        (get_args(params.Training.model_fields["times"].annotation), TIMES, set()),
    ],
    ids=["samplers", "processes", "times"],
)
def test_each_kind_has_the_library_s_arguments_and_defaults(
    models: list[Any], library: dict[str, type], extra: set[str]
) -> None:
    kinds = {kind: model for model in models for kind in named(model, "kind")}
    assert set(kinds) == set(library)
    for kind, model in kinds.items():
        expected = fields(library[kind])
        if kind == "runge_kutta":  # which chooses its own steps
            expected = {k: v for k, v in expected.items() if k not in ("steps", "grid")}
        if kind == "langevin":  # which has one noise level
            del expected["grid"]
        assert set(model.model_fields) - extra - {"kind"} == set(expected), kind
        for name, default in expected.items():
            field = model.model_fields[name]
            assert field.is_required() or field.default == default, (kind, name)


def test_the_schema_allows_what_the_library_has() -> None:
    assert named(params.Training, "weighting") == set(get_args(Weighting))
    assert named(params.Training, "objective") == set(get_args(Objective))
    assert named(params.Inverse, "method") == set(get_args(Method))
    assert named(params.Model, "preconditioning") == set(get_args(Preconditioning))
    assert named(params.PlainSampler, "grid") == set(GRIDS)
    assert set(params.Training.model_fields) == set(fields(TrainingConfig))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "energy: false ",
            "energy: true ",
            r"models\.ve\.training\.compile: True is not allowed, allowed: false with energy: true",
        ),
        (
            "objective: denoising ",
            "objective: sliced ",
            r"models\.ve\.training\.compile: True is not allowed, allowed: false with objective: sliced",
        ),
        (
            "active:",
            "active:",
            None,
        ),
    ],
)
def test_what_has_second_derivatives_is_not_compiled(
    tmp_path: Path, old: str, new: str, said: str | None
) -> None:
    path = changed(tmp_path, "compile: false ", "compile: true ")
    path.write_text(path.read_text().replace(old, new, 1))
    if said is None:
        load_params(path)
        return
    with pytest.raises(ParamsError, match=said):
        load_params(path)


def test_a_chain_has_no_likelihood(tmp_path: Path) -> None:
    path = changed(tmp_path, "likelihood: null ", "likelihood: {count: 8, probes: 2} ")
    load_params(path)
    path.write_text(path.read_text().replace("models: [ve, vp]", "models: [vp, ddpm]"))
    with pytest.raises(
        ParamsError, match=r"evaluation\.likelihood: .* active model 'ddpm': a chain"
    ):
        load_params(path)


def test_guidance_needs_a_model_that_knows_what_no_class_is(tmp_path: Path) -> None:
    path = changed(tmp_path, "models: [ve, vp]", "models: [vp_classes]")
    path.write_text(path.read_text().replace("samplers: [heun, ", "samplers: [heun_guided, "))
    load_params(path)
    path.write_text(path.read_text().replace("label_dropout: 0.1", "label_dropout: 0.0"))
    with pytest.raises(ParamsError, match=r"guidance: 2\.0 is not allowed.*label_dropout is 0\.0"):
        load_params(path)


def test_every_shipped_sampler_can_be_planned_for_the_models_that_define_it() -> None:
    shipped = load_params(ROOT / "params.yaml")
    data = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for model in shipped.models.values():
        process = build_process(model.sde, data)
        assert process is not None
        for name, chosen in shipped.samplers.items():
            if not isinstance(process, SDE) and (
                chosen.kind in ("euler_maruyama", "runge_kutta", "stochastic_heun")
                or (process.kind == "ncsn" and name not in ("annealed_langevin", "heun"))
            ):
                continue
            if name == "annealed_langevin" and isinstance(process, SDE):
                continue
            assert build_sampler(chosen).plan(process)
