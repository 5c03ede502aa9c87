"""Every mistake in params.yaml gets one line: file, dotted key, value, and what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.processes.base import process_from_config
from scoremodel.processes.sde import SDE
from tasks.params.errors import ParamsError
from tasks.params.filled import lay_over, walk
from tasks.params.load import checked, load_params, read_yaml
from tasks.params.schema import Params
from tasks.sample import build_sampler
from tests.workspace import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()


def changed(folder: Path, *edits: tuple[str, str]) -> Path:
    text = SHIPPED
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / "params.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seed: 0 ", "sed: 0 ", "sed: unknown key, allowed: seed, threads, cores, processes, sharded, "
         "device, tf32, deterministic, checkpoints, watch, active, "),
        ("sigma_min: 0.02", "sigma_min: 200", "models.ve.sde.sigma_max: 100.0 is not allowed, "
         "allowed: a number greater than sigma_min (200)"),
        ("  samplers:           # NAME, or NAME_N: the sampler NAME with N steps\n  - heun\n"
         "  - euler_maruyama", "  samplers: heun", "active.samplers: 'heun' is not allowed, allowed: a list"),
        ("count: 448", "count: -5",
         "evaluation.count: -5 is not allowed, allowed: an integer from 8 to 10,000,000"),
        ("neighbours: 5", "neighbours: 448",
         "evaluation.neighbours: 448 is not allowed, allowed: less than evaluation.count, 448"),
        ("kind: ve,", "kind: vee,", "models.ve.sde.kind: 'vee' is not allowed, "
         "allowed: 'ddpm', 'ncsn', 'subvp', 've', 'vp', 'vp_cosine'"),
        ("{kind: ve, ", "{", "models.ve.sde: missing key: kind"),
        ("- digits", "- nope",
         "active.datasets[0]: 'nope' is not allowed, allowed: one of: cifar10, digits, "),
        ("cores: 2 ", "cores: 0 ", "cores: 0 is not allowed, allowed: an integer from 1 to 1,024"),
        ("threads: 1 ", "threads: 4 ", "cores: 2 is not allowed, allowed: at least threads (4)"),
        ("processes: auto", "processes: all", "processes: 'all' is not allowed, allowed: 'auto' or an "
         "integer from 1 to 1,024"),
        ("threads: 1", "threads: true", "threads: True is not allowed, allowed: an integer from 1 to 1,024"),
        ("device: auto", "device: gpu",
         "device: 'gpu' is not allowed, allowed: 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'"),
        ("  - 2\n  samplers", "  - 0\n  samplers",
         "active.train_seeds: [0, 1, 0] is not allowed, allowed: a list without repetitions"),
        ("eta: 0.5", "eta: 1.5", "samplers.ddim.eta: 1.5 is not allowed, allowed: a number from 0 to 1"),
        ("levels: 1000", "levels: 1", "models.ddpm.sde.levels: 1 is not allowed"),
        ("beta_first: 1.0e-4", "beta_first: 0.5",
         "models.ddpm.sde.beta_last: 0.02 is not allowed, allowed: a number greater than beta_first"),
        ("eta: 0.5}", "eta: 0.5, path: {kind: vp, beta_min: 1.0, beta_max: 0.5}}",
         "samplers.ddim.path.beta_max: 0.5 is not allowed, allowed: a number greater than beta_min"),
        ("eta: 0.5}", "eta: 0.5, path: {kind: vp, beta: 0.5}}",
         "samplers.ddim.path.beta: unknown key, allowed: kind, t_min, beta_min, beta_max"),
        ("sigma_max: 100.0}}", "sigma_max: null}}", "samplers.heun_on_ve.path.sigma_max: None is not"),
        ("  euler: {", "  euler-9: {", "samplers.euler-9: 'euler-9' is not allowed, allowed: lower-case"),
        ("100, grid: log_snr}", "100, eta: 0.5}",
         "samplers.ancestral.eta: unknown key, allowed: guidance, autoguide, path, ema_half_life, ema_std, "
         "precision, kind, steps, grid, variance, like"),
        ("{steps: 18}", "{kind: hein, steps: 18}",  # three others are like it
         "samplers.heun.kind: 'hein' is not allowed, allowed: 'ancestral', "),
        ("{steps: 18}", "{steps: 18, ema_std: 0.1}", "samplers.heun.ema_std: 0.1 is not allowed, allowed: "
         "null: what the active model 've' keeps (training.ema_stds)"),
        ("{steps: 18}", "{steps: 18, autoguide: 9, guidance: 2}", "samplers.heun.autoguide: 9.0 is not "
         "allowed, allowed: null, 5000: what the active model 've' keeps (training.ema_half_lives and ema_"),
        ("ema_stds: []", "ema_stds: [0.05, 0.5]", "defaults.model.training.ema_stds[1]: 0.5 is not "
         "allowed, allowed: a number from 0.001 to 0.28"),
        ("{steps: 18}", "{steps: 18, ema_half_life: 7}",
         "samplers.heun.ema_half_life: 7.0 is not allowed, allowed: null, 5000: what the active "
         "model 've' keeps (training.ema_half_lives)"),
        ("  - heun\n", "  - heun_guided\n",
         "samplers.heun_guided.guidance: 2.0 is not allowed, allowed: 1.0 for the active model 've'"),
        ("digits: {held_out: 0.5}", "digits: {held_out: sauce}",
         "datasets.digits.held_out: 'sauce' is not allowed, allowed: a number greater than 0 "
         "and less than 1 or 'source'"),
        ("iterations: 3", "iteration: 3", "applications.inverse.iteration: unknown key, allowed: operat"),
        ("applications: []", "applications: [likelyhood]", "active.applications[0]: 'likelyhood' is not "
         "allowed, allowed: 'likelihood', 'inverse', 'latents' or 'field'"),
        ("    seeds:\n    - 0\n    - 1\n    - 2\n", "    seeds:\n    - 0\n",
         "studies.failures.seeds: [0] is not allowed"),
        # What stands in defaults is named there, once, however many models and samplers have it:
        ("parts: 2", "parts: 128", "defaults.model.training.parts: 128 is not allowed, "  # fashion_ve's
         "allowed: a power of two that divides batch_size (64)"),
        ("precision: auto", "precision: float16", "defaults.model.training.precision: 'float16' is "
         "not allowed, allowed: 'auto', 'float32' or 'bfloat16'"),
        ("another than the first\n      - 5000\n", "another\n        []\n",
         "defaults.model.training.ema_half_lives: [] is not allowed, allowed: a list of 1 to 16 items"),
        ("flip: false\n      augment: ", "flip: true\n      augment: 0.1 ",
         "defaults.model.training.augment: 0.1 is not allowed, allowed: null with flip: true"),
        ("objective: denoising    # denoising | sliced | implicit (vectors) | explicit (generated mixtures)\n"
         "      weighting: edm  # sigma2 | likelihood | edm\n      uncertainty: false",
         "objective: sliced\n      uncertainty: true",
         "defaults.model.training.uncertainty: True is not allowed, allowed: false with objective 'sliced'"),
        ("  vp:\n    sde: ", "  vp:\n    training: {decay_steps: 9}\n    sde: ",
         "models.vp.training.decay_steps: 9 is not allowed, "
         "allowed: null with schedule 'linear', which has none"),
        ("width: 32", "width: 3.5",
         "defaults.model.network.unet.width: 3.5 is not allowed, allowed: an integer from 1 to 65,536"),
        ("learning_rate: 4.0e-3", "learning_rate: fast",
         "defaults.model.training.learning_rate: 'fast' is not allowed, allowed: a number from 1e-12 to 100"),
        ("attention_levels: []", "attention_levels: [2]", "defaults.model.network.unet."
         "attention_levels: [2] is not allowed, allowed: levels from 0 to 1"),
        ("mean: -0.6, std: 1.2}", "mean: 0, std: 0}",
         "defaults.model.training.times.std: 0 is not allowed, allowed: a number from 1e-06 to 100"),
        ("kind: log_normal, mean: -0.6, ", "kind: stratified, ",
         "defaults.model.training.times.std: unknown key, allowed: kind"),
        ("    guidance: 1.0", "    guidance: -1.0", "defaults.sampler.guidance: -1.0 is not allowed"),
        ("    guidance: 1.0", "    guidence: 1.0", "defaults.sampler.guidence: unknown key, allowed: "
         "guidance, autoguide, path, ema_half_life, ema_std, precision"),
        ("    preconditioning: edm", "    preconditoning: edm", "defaults.model.preconditoning: unknown "
         "key, allowed: pretrained, sde, preconditioning, energy, network, training"),
        ("  sampler:\n", "  smapler:\n", "defaults.smapler: unknown key, allowed: model, sampler"),
        ("\ndefaults: ", "\ndefault: ", "default: unknown key, allowed: seed, "),
        # and what stands in a model, in that model's block:
        ("steps: 7500", "steps: 0", "models.fashion_ve.training.steps: 0 is not allowed"),
        ("steps: 7500", "stpes: 7500", "models.fashion_ve.training.stpes: unknown key, allowed: steps, "),
        ("{unet: {width: 32", "{resnet: {width: 32",
         "models.fashion_ve.network.resnet: unknown key, allowed: unet, mlp, ddpmpp, ncsnpp, adm, edm2, "),
        ("{unet: {width: 32, ", "{adm: {width: 32, head_channels: 0, ",
         "models.fashion_ve.network.adm.head_channels: 0 is not allowed, allowed: an integer from 1 to"),
        ("{unet: {width: 32, ", "{adm: {}, edm2: {width: 32, ", "models.fashion_ve.network: adm and edm2 "
         "are not allowed together, allowed: one network in place of unet"),
        ("label_dropout: 0.1}", "label_dropout: 1.0}",
         "models.vp_classes.training.label_dropout: 1.0 is not allowed, allowed: a number "
         "at least 0 and less than 1"),
        # `like`:
        ("{like: vp, energy", "{like: nope, energy",
         "models.vp_energy.like: 'nope' is not allowed, allowed: one of: ddpm, fashion_ve, "),
        ("{like: vp, energy", "{like: [vp], energy", "models.vp_energy.like: ['vp'] is not allowed"),
        ("{like: vp, energy", "{like: vp_energy, energy",
         "models.vp_energy.like: 'vp_energy' is not allowed, allowed: one of: ddpm, "),
        ("  vp:\n", "  vp:\n    like: vp_energy\n", "models.vp_energy.like: 'vp' is not allowed"),
        ("like: heun, guidance", "like: hein, guidance",
         "samplers.heun_guided.like: 'hein' is not allowed, allowed: one of: ancestral, "),
        # NAME_N:
        ("  - heun\n", "  - hein_9\n", "active.samplers[0]: 'hein_9' is not allowed, allowed: one of: "),
        ("  - heun\n", "  - heun_0\n", "active.samplers[0]: 'heun_0' is not allowed, allowed: heun_N, N "
         "an integer from 1 to 100,000"),
        ("  - euler_maruyama\n", "  - runge_kutta_9\n", "active.samplers[1]: 'runge_kutta_9' is not "
         "allowed, allowed: runge_kutta, which has no steps"),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    path = changed(tmp_path, (old, new))
    with pytest.raises(ParamsError) as error:
        load_params(path)
    (said,) = str(error.value).splitlines()
    assert said.startswith(f"{path}: {line}")


SECRET = "${oc.env:AWS_SECRET_ACCESS_KEY}"


@pytest.mark.parametrize(
    ("old", "new", "key", "text"),
    [
        ("device: auto", f"device: '{SECRET}'", "device", SECRET),
        ("- digits", f"- 'a{SECRET}'", "active.datasets[0]", f"a{SECRET}"),
        ("{steps: 18}", "{steps: '${seed}'}", "samplers.heun.steps", "${seed}"),
        ("{steps: 18}", f"{{'{SECRET}': 18}}", f"samplers.heun.{SECRET}", SECRET),
    ],
)
def test_what_dvc_would_look_up_is_refused(
    tmp_path: Path, old: str, new: str, key: str, text: str
) -> None:
    path = changed(tmp_path, (old, new))
    with pytest.raises(ParamsError) as error:
        load_params(path)
    assert str(error.value) == (
        f"{path}: {key}: {text!r} is not allowed, allowed: text without ${{, which DVC would look up"
    )


def test_two_mistakes_get_two_lines(tmp_path: Path) -> None:
    path = changed(tmp_path, ("threads: 1 ", "threads: two "), ("width: 32", "width: x"))
    with pytest.raises(ParamsError) as error:
        load_params(path)
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "threads",
        "defaults.model.network.unet.width",
    ]


@pytest.mark.parametrize("junk", [5, "x", [None], {}, {"kind": "x"}, {1: 2}, None])
def test_whatever_stands_anywhere_is_said_in_lines(junk: Any) -> None:
    """A seventh of all places for each; () is the whole file."""
    raw = read_yaml(ROOT / "params.yaml")
    places = [path for path, _ in walk(raw)]
    first = [5, "x", [None], {}, {"kind": "x"}, {1: 2}, None].index(junk)
    for place in [(), *places[1 + first :: 7]]:
        whole: Any = {"": copy.deepcopy(raw)}
        block, key = whole, ""
        for one in place:
            block, key = block[key], one
        block[key] = junk
        try:
            checked(whole[""], Path("params.yaml"))
        except ParamsError as error:
            for line in str(error).splitlines():
                assert line.startswith("params.yaml: "), place


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = changed(tmp_path, ("- digits", "- [digits"))
    with pytest.raises(ParamsError, match=r"params\.yaml, line \d+: not valid YAML"):
        load_params(path)
    with pytest.raises(ParamsError, match="no such file; run this in the project's folder"):
        load_params(tmp_path / "nowhere.yaml")


def test_a_number_as_dvc_writes_it_is_a_number(tmp_path: Path) -> None:
    given = load_params(changed(tmp_path, ("learning_rate: 4.0e-3", "learning_rate: 1e-05")))
    assert given.models["ve"].training.learning_rate == 1e-5


def test_a_block_is_laid_over_one_of_its_kind_and_replaces_one_of_another() -> None:
    base = {"a": 1, "times": {"kind": "log_normal", "mean": 0.0, "std": 1.0}, "n": {"w": 1, "d": 2}}
    before = copy.deepcopy(base)
    assert lay_over(base, {"times": {"mean": 1.0}, "n": {"w": 3}}) == {
        "a": 1,
        "times": {"kind": "log_normal", "mean": 1.0, "std": 1.0},
        "n": {"w": 3, "d": 2},
    }
    other = {"kind": "single", "ratio": 0.3}
    assert lay_over(base, {"times": other})["times"] == other
    assert base == before


def shipped(**active: list[Any]) -> Params:
    raw = read_yaml(ROOT / "params.yaml")
    raw["active"] |= active
    return checked(raw, Path("params.yaml"))


def test_what_a_block_does_not_say_is_the_default_s_or_that_of_whom_it_is_like() -> None:
    models: Any = shipped().models
    assert models["ve"].network == models["vp"].network
    assert models["ve"].training == models["vp"].training
    assert models["ve"].sde != models["vp"].sde
    assert models["vp_classes"].sde == models["vp"].sde
    assert models["vp_classes"].training.label_dropout == 0.1
    assert models["vp_classes"].training.steps == models["vp"].training.steps
    assert models["one_level"].training.times.ratio == 0.3  # in place of the default's log-normal
    fashion = models["fashion_vp"]  # like fashion_ve, which is like ve
    assert (fashion.training.steps, fashion.network.unet.width) == (7500, 32)
    assert (fashion.sde.kind, fashion.network.unet.blocks) == (
        "vp",
        models["ve"].network.unet.blocks,
    )


def test_a_number_after_a_sampler_s_name_is_its_steps() -> None:
    samplers: Any = shipped(
        samplers=["heun", "heun_9", "ancestral_ddpm_500", "heun_on_ve_5"]
    ).samplers
    expected = samplers["heun"].model_dump(exclude_unset=True) | {"steps": 9}
    assert samplers["heun_9"].model_dump(exclude_unset=True) == expected
    assert (samplers["ancestral_ddpm_500"].kind, samplers["ancestral_ddpm_500"].steps) == (
        "ancestral",
        500,
    )
    assert samplers["heun_on_ve_5"].path == samplers["heun_on_ve"].path
    raw = read_yaml(ROOT / "params.yaml")
    raw["samplers"]["heun_9"] = {"like": "heun", "steps": 3}  # a block of that name is itself
    raw["active"]["samplers"] = ["heun_9"]
    assert checked(raw, Path("params.yaml")).samplers["heun_9"].steps == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("weighting", "likelihood", "training.weighting: 'likelihood' is not"),
        ("times", {"kind": "importance"}, "training.times.kind: 'importance' is not"),
    ],
)
def test_what_a_chain_has_not_is_refused(key: str, value: Any, words: str) -> None:
    raw = read_yaml(ROOT / "params.yaml")
    raw["models"]["ncsn"]["training"] = {key: value}
    with pytest.raises(ParamsError, match=rf"models\.ncsn\.{words}.*no g\(t\) for a chain"):
        checked(raw, Path("params.yaml"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("vp_energy", "allowed: false with energy: true"),
        ("vp_sliced", "allowed: false with objective: sliced"),
        ("vp", None),
    ],
)
def test_what_has_second_derivatives_is_not_compiled(model: str, said: str | None) -> None:
    raw = read_yaml(ROOT / "params.yaml")
    raw["models"][model].setdefault("training", {})["compile"] = True
    if model == "vp":  # the others are like it
        del raw["models"]["vp_energy"], raw["models"]["vp_sliced"]
    if said is None:
        checked(raw, Path("params.yaml"))
        return
    where = rf"models\.{model}\.training\.compile: True is not allowed, {said}"
    with pytest.raises(ParamsError, match=where):
        checked(raw, Path("params.yaml"))


def test_a_chain_has_no_likelihood() -> None:
    shipped(applications=["likelihood"])
    shipped(applications=["inverse"], models=["vp", "ddpm"])
    said = r"active\.applications\[1\]: 'latents' .* active model 'ddpm': a chain"
    with pytest.raises(ParamsError, match=said):
        shipped(applications=["inverse", "latents"], models=["vp", "ddpm"])


def test_guidance_needs_a_model_that_knows_what_no_class_is() -> None:
    raw = read_yaml(ROOT / "params.yaml")
    raw["active"] |= {"models": ["vp_classes"], "samplers": ["heun_guided"]}
    checked(raw, Path("params.yaml"))
    raw["models"]["vp_classes"]["training"]["label_dropout"] = 0.0
    with pytest.raises(ParamsError, match=r"guidance: 2\.0 is not allowed.*label_dropout is 0\.0"):
        checked(raw, Path("params.yaml"))


def test_every_shipped_sampler_can_be_planned_for_the_models_that_define_it() -> None:
    given = shipped().model_dump(exclude_unset=True)
    data = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for model in given["models"].values():
        process = process_from_config(model["sde"], lambda: data)
        for name, chosen in given["samplers"].items():
            if not isinstance(process, SDE) and (
                chosen["kind"] in ("euler_maruyama", "runge_kutta", "stochastic_heun")
                or (process.kind == "ncsn" and name not in ("annealed_langevin", "heun"))
            ):
                continue
            if name == "annealed_langevin" and isinstance(process, SDE):
                continue
            assert build_sampler(chosen).plan(process)
