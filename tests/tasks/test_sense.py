"""What no data, process or machine has is refused before anything runs; what may be meant is said."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from scoremodel.processes.base import process_from_config
from scoremodel.ranks import Ranks
from tasks import check as checking
from tasks import prepare, train
from tasks.check import Checked, check
from tasks.files.known import known_card, same_folder
from tasks.files.layout import Configuration
from tasks.params import memory, presets, survey
from tasks.params.errors import Located, ParamsError
from tasks.params.fits import Doubtful, misfits, require_fit, said_of
from tasks.params.load import checked
from tasks.params.sense import senseless_process
from tasks.params.survey import Survey
from tests.workspace import ROOT, Workspace

IMAGES: dict[str, Any] = {
    "name": "mine", "shape": [1, 8, 8], "count": {"train": 898, "held_out": 899}, "levels": 17,
    "mean": [0.0], "std": 0.75, "class_counts": {"a": 448, "b": 450}, "mixture": None, "sha256": "",
}  # fmt: skip
POINTS = IMAGES | {"name": "plane", "shape": [2], "levels": None, "mean": [0.0, 0.0], "std": 0.6}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder that has the sources and nothing that was made of them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(
        ROOT / "data/raw", tmp_path / "data/raw", ignore=shutil.ignore_patterns("torchvision")
    )


def said(raw: Any) -> dict[str, Any]:
    return checked(raw, Path("params.yaml")).model_dump()


def lines(found: Any) -> list[str]:
    return [said_of(one).removeprefix("params.yaml: ") for one in found]


def found_by_check(raw: Any) -> Checked:
    with Path("params.yaml").open("w") as out:
        YAML().dump(raw, out)
    return check()


# Processes. The numbers are worked out here from the definitions.


@pytest.mark.parametrize(
    ("config", "std", "left", "refused"),
    [
        ({"kind": "vp", "beta_min": 0.1, "beta_max": 0.2}, 0.5,
         0.25 * math.exp(-0.15) / (0.25 * math.exp(-0.15) + 1 - math.exp(-0.15)), True),
        ({"kind": "vp", "beta_min": 0.1, "beta_max": 4.0}, 0.75,
         0.5625 * math.exp(-2.05) / (0.5625 * math.exp(-2.05) + 1 - math.exp(-2.05)), False),
        ({"kind": "ve", "sigma_min": 0.02, "sigma_max": 0.7}, 0.75,
         0.5625 / (0.5625 + 0.49), True),
        ({"kind": "ve", "sigma_min": 0.02, "sigma_max": 3.0}, 0.75, 0.5625 / (0.5625 + 9), False),
        ({"kind": "vp_cosine", "offset": 0.008, "t_end": 0.05}, 0.5,
         (lambda a: 0.25 * a / (0.25 * a + 1 - a))(
             (math.cos(math.pi / 2 * 0.058 / 1.008) / math.cos(math.pi / 2 * 0.008 / 1.008)) ** 2
         ), True),
        ({"kind": "ddpm", "beta_first": 1e-4, "beta_last": 0.02, "levels": 50}, 0.5,
         (lambda a: 0.25 * a / (0.25 * a + 1 - a))(float(np.prod(1 - np.linspace(1e-4, 0.02, 50)))), False),
        ({"kind": "ncsn", "sigma_min": 0.02, "sigma_max": 0.4, "levels": 10}, 0.5,
         0.25 / (0.25 + 0.16), True),
    ],
)  # fmt: skip
def test_a_prior_that_is_never_reached_is_said_with_the_share_that_is_left(
    config: dict[str, Any], std: float, left: float, refused: bool
) -> None:
    process = process_from_config(config)
    assert process.left_in_prior(std) == pytest.approx(left, rel=1e-6)
    (found,) = senseless_process("models.x.sde", process, IMAGES | {"std": std}, "mine")
    assert isinstance(found, Located) == refused
    assert f"{left:.3g} of the variance at t = 1 is the data's own" in said_of(found)
    assert said_of(found).startswith("params.yaml: models.x.sde: {'kind': ")


def test_a_process_that_hides_the_data_is_right_and_more_data_need_more_noise() -> None:
    """The spread is the card's: the same process reaches the prior of one data set and not of another."""
    process = process_from_config({"kind": "ve", "sigma_min": 0.02, "sigma_max": 100.0})
    assert not list(senseless_process("x", process, None, "mine"))
    (found,) = senseless_process("x", process, POINTS | {"std": 200.0}, "plane")
    assert isinstance(found, Located)
    assert "0.8 of the variance" in found.allowed  # 200² / (200² + 100²)


@pytest.mark.parametrize(("sigma_min", "refused"), [(0.3, False), (0.9, True), (0.02, None)])
def test_a_smallest_noise_as_large_as_the_data_is_no_model_of_them(
    sigma_min: float, refused: bool | None
) -> None:
    process = process_from_config(
        {"kind": "ncsn", "sigma_min": sigma_min, "sigma_max": 50.0, "levels": 100}
    )
    found = list(senseless_process("x", process, IMAGES, "mine"))
    assert len(found) == (refused is not None)
    if found:
        assert isinstance(found[0], Located) == refused
        assert f"{sigma_min / 0.75:.3g} times the standard deviation" in said_of(found[0])
    if refused is False:  # of 17 levels two neighbours are 1/8 apart
        assert f"{sigma_min * 8:.3g} grey levels" in said_of(found[0])


# Data.


def test_counts_that_the_splits_cannot_serve(raw: Any) -> None:
    """300 images of one's own with the default numbers: 150 to train, of which the judge takes half."""
    own = IMAGES | {"count": {"train": 150, "held_out": 150}}
    # (150 − 75) // 2 = 37 are the floor's; 4 × 37 = 148
    (refused, warned) = misfits(own, said(raw), share=0.5)
    assert lines([refused]) == [
        "evaluation.count: 448 is not allowed, allowed: at most 148, 4 times half of the 75 training "
        "points of 'mine' that are new to the extractor, of which the floor is made"
    ]
    assert lines([warned]) == [
        "evaluation.count: 448: precision, recall and coverage compare 448 samples with only the 150 "
        "held-out points of 'mine'"
    ]
    raw["evaluation"]["count"] = 100
    assert lines(misfits(own, said(raw), share=0.5)) == [
        "evaluation.count: 100: the floor is of 37 real data, half of the 75 training points of 'mine' "
        "that are new to the extractor, not of 100"
    ]
    assert not list(
        misfits(own | {"count": {"train": 200, "held_out": 100}}, said(raw), share=None)
    )
    raw["evaluation"]["neighbours"] = 37
    (refused,) = misfits(own, said(raw), share=0.5)
    assert lines([refused])[0].startswith(
        "evaluation.neighbours: 37 is not allowed, allowed: less than 37, half of the 75"
    )
    few = IMAGES | {"count": {"train": 150, "held_out": 30}}
    assert (
        "allowed: less than the 30 held-out points of 'mine'"
        in lines(misfits(few, said(raw), 0.5))[0]
    )
    (refused, *_) = misfits(IMAGES | {"count": {"train": 6, "held_out": 60}}, said(raw), share=0.5)
    assert "allowed: a data set of at least 4 training points that are new" in said_of(refused)
    (refused,) = misfits(IMAGES | {"count": {"train": 60, "held_out": 60}}, said(raw), share=0.01)
    assert "allowed: a share of the 60 training points of 'mine' that leaves no side" in said_of(
        refused
    )


def test_a_class_that_the_extractor_may_not_see_is_named(raw: Any) -> None:
    card = IMAGES | {"class_counts": {"many": 895, "rare": 3}}
    assert lines(misfits(card, said(raw), share=0.2))[0] == (
        "evaluation.extractor.share: 0.2: the class 'rare' of 'mine' has 3 training images: none may be "
        "in that share"
    )
    assert not list(misfits(card, said(raw), share=None))


def training(raw: Any, **more: Any) -> None:
    raw["models"]["ve"]["training"] = more


def application(raw: Any, name: str, **more: Any) -> None:
    raw["active"]["applications"] = [name]
    raw["applications"][name] |= more


def operator(raw: Any, **more: Any) -> None:
    application(raw, "inverse", operator=more)


@pytest.mark.parametrize(
    ("network", "line"),
    [
        ({"ncsnpp": {}}, "models.ve.network.ncsnpp.attention_resolutions: (16,) is not allowed, allowed: "
         "some of 8, 4, 2, 1, the longer sides of the levels of images of 8×8 pixels ('digits')"),
        ({"edm2": {"multipliers": [1] * 5}}, "models.ve.network.edm2.multipliers: [1, 1, 1, 1, 1] is not "
         "allowed, allowed: at most 4 of them, one a level, for images of 8×8 pixels, which are halved "
         "between two levels ('digits')"),
        ({"adm": {"width": 8, "multipliers": [1, 2], "attention_resolutions": [4], "head_channels": 5}},
         "models.ve.network.adm: {'width': 8, "),
    ],
)  # fmt: skip
def test_a_published_network_is_held_to_the_images(
    raw: Any, network: dict[str, Any], line: str
) -> None:
    raw["active"]["models"] = ["ve"]
    raw["models"]["ve"]["network"] = network
    found = Survey(checked(raw, Path("params.yaml")))
    (refused,) = lines(found.findings(refused=True))
    assert refused.startswith(line)


@pytest.mark.parametrize(
    ("change", "card", "line"),
    [
        (lambda raw: training(raw, objective="implicit"), IMAGES,
         "models.ve.training.objective: 'implicit' is not allowed, allowed: denoising, sliced for the"),
        (lambda raw: training(raw, objective="explicit"), POINTS,
         "models.ve.training.objective: 'explicit' is not allowed, allowed: denoising, sliced, implicit"),
        (lambda raw: training(raw, label_dropout=0.1), IMAGES | {"class_counts": None},
         "models.ve.training.label_dropout: 0.1 is not allowed, allowed: null for 'mine', which has no"),
        (lambda raw: raw["models"]["ve"].update(network={"unet": {"multipliers": [1, 1, 2, 2, 4]}}), IMAGES,
         "models.ve.network.unet.multipliers: [1, 1, 2, 2, 4] is not allowed, allowed: at most 4 levels "
         "for the images of 'mine', whose 8 pixels are one pixel after 3 halvings"),
        (lambda raw: application(raw, "likelihood"), POINTS,
         "active.applications[0]: 'likelihood' is not allowed, allowed: an application that 'plane' has"),
        (lambda raw: application(raw, "field"), IMAGES,
         "active.applications[0]: 'field' is not allowed, allowed: an application that 'mine' has; this"),
        (lambda raw: application(raw, "inverse"), POINTS,
         "active.applications[0]: 'inverse' is not allowed, allowed: an application that 'plane' has"),
        (lambda raw: application(raw, "likelihood", count=900), IMAGES,
         "applications.likelihood.count: 900 is not allowed, allowed: at most the 899 held-out points"),
        (lambda raw: application(raw, "latents", count=900), IMAGES, "applications.latents.count: 900 is"),
        (lambda raw: application(raw, "inverse", count=900), IMAGES, "applications.inverse.count: 900 is"),
        (lambda raw: operator(raw, kind="downsample", factor=3), IMAGES,
         "applications.inverse.operator.factor: 3 is not allowed, allowed: a divisor of both sides for "
         "the images of 'mine' with 8×8 pixels"),
        (lambda raw: operator(raw, kind="blur", std=5.0), IMAGES,
         "applications.inverse.operator.std: 5.0 is not allowed, allowed: at most half of a side, 4,"),
    ],
)  # fmt: skip
def test_what_the_data_do_not_have_is_refused(
    raw: Any, change: Callable[[Any], None], card: dict[str, Any], line: str
) -> None:
    assert not [one for one in misfits(card, said(raw), None) if isinstance(one, Located)]
    change(raw)
    (found,) = misfits(card, said(raw), None)
    assert isinstance(found, Located)
    assert lines([found])[0].startswith(line)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda raw: operator(raw, kind="downsample", factor=3), "operator.factor: 3 is not allowed"),
        (lambda raw: raw["datasets"]["digits"].update(held_out="source"), "no test split of its own"),
        (lambda raw: raw["models"]["vp"]["sde"].update(beta_max=0.2), "models.vp.sde: {'kind': 'vp'"),
        (lambda raw: raw["evaluation"].update(neighbours=440, count=5000),
         "evaluation.count: 5000 is not allowed, allowed: at most 1796"),
        (lambda raw: raw["evaluation"].update(extractor={"kind": "shipped", "name": "mnist"}),
         "evaluation.extractor.name: 'mnist' is not allowed, allowed: one that is made for 'digits', "
         "whose shape is [1, 8, 8], not [1, 28, 28]"),
        (lambda raw: raw["active"].update(models=["ncsn"], samplers=["heun", "ancestral"]),
         "active.samplers[1]: 'ancestral' is not allowed, allowed: samplers of fewer steps with the "
         "active model 'ncsn', whose ladder has about 22 levels on 'digits'"),
    ],
)  # fmt: skip
def test_check_finds_before_anything_ran_what_stages_found(
    raw: Any, change: Callable[[Any], None], line: str
) -> None:
    """Nothing is prepared: the digits, which are bundled, are looked at themselves."""
    change(raw)
    with pytest.raises(ParamsError) as error:
        found_by_check(raw)
    assert line in str(error.value)
    assert "params.yaml: " in str(error.value)


def test_the_default_has_nothing_to_warn_of(raw: Any) -> None:
    found = found_by_check(raw)
    assert found.warnings == []
    assert len(found.costs) == 2 + 4  # of trainings, of samples


def surveyed(name: str, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Return what is found of a preset, whose images are known by their card, where 80 GiB are."""
    monkeypatch.setattr(presets, "PRESETS", ROOT / "presets")
    params = presets.laid_over(name, ROOT / "params.yaml")
    dataset = params.active.datasets[0]
    if dataset in SHAPES:
        classes = {f"{number}": 1280 for number in range(1000 if dataset == "imagenet64" else 10)}
        card = IMAGES | {"name": dataset, "shape": SHAPES[dataset], "levels": 256, "std": 0.5}
        card |= {"count": {"train": 50_000, "held_out": 10_000}, "class_counts": classes}
        monkeypatch.setattr(survey, "known_card", lambda *_: card)
        monkeypatch.setattr(survey, "source_of", lambda _: ({"kind": "archive"}, "images"))
    monkeypatch.setattr(survey, "machine_memory", lambda *_: 80 * 2**30)
    return Survey(params)


SHAPES = {
    "fashion_mnist": [1, 28, 28],
    "cifar10": [3, 32, 32],
    "ffhq64": [3, 64, 64],
    "imagenet64": [3, 64, 64],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_no_preset_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = surveyed(name, monkeypatch)
    assert lines(found.findings(refused=True)) == []
    doubts = lines(found.findings(refused=False))
    if name in PUBLISHED:  # 50,000 samples are as published, more than there are held-out images
        assert all("evaluation.count: 50000: " in line for line in doubts), doubts
        return
    assert doubts == []


PUBLISHED = {  # parameters, images and network calls of a sample
    "cifar10_ncsnpp_ve": ("62.76 M", "166 M", "1,999"),
    "cifar10_ddpmpp_vp": ("61.80 M", "166 M", "1,000"),
    "cifar10_edm_ve": ("56.40 M", "200 M", "35"),
    "cifar10_edm_vp": ("55.73 M", "200 M", "35"),
    "ffhq64_edm": ("61.81 M", "200 M", "79"),
    "imagenet64_edm2_xs": ("124.71 M", "1.07 G", "63"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_training_has_its_published_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters, images, calls = PUBLISHED[name]
    found = surveyed(name, monkeypatch)
    (line,) = found.training_lines()
    assert f": {parameters} parameters, {images} images" in line
    assert f": {calls} network calls a sample" in found.cost_lines()[0][1]


def test_every_model_of_params_reaches_its_prior_on_the_digits(raw: Any) -> None:
    raw["active"] |= {"models": sorted(raw["models"]), "samplers": ["heun"]}
    found = Survey(checked(raw, Path("params.yaml")))
    assert lines(found.findings(refused=True)) == []
    assert lines(found.findings(refused=False)) == []


# The card of an earlier prepare.


def prepared(card: dict[str, Any], how: dict[str, Any]) -> Configuration:
    """Write a card and the entry of dvc.lock that `dvc repro` would have written with it."""
    files = Configuration("mine")
    files.raw.mkdir(parents=True)
    (files.raw / "source.yaml").write_text("kind: rings\ncount: 9\n")
    files.card.parent.mkdir(parents=True)
    files.card.write_text(json.dumps(card))
    md5 = hashlib.md5
    listed = [
        {"md5": md5((files.raw / "source.yaml").read_bytes()).hexdigest(), "relpath": "source.yaml"}
    ]
    raw_hash = md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    split = md5((json.dumps(how, indent=1) + "\n").encode()).hexdigest()
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  check:\n    cmd: x\n  prepare@mine:\n    cmd: exec\n    deps:\n"
        f"    - path: artifacts/resolved/datasets/mine.json\n      md5: {split}\n      size: 1\n"
        f"    - path: data/raw/mine\n      md5: {raw_hash}.dir\n      size: 21\n      nfiles: 1\n"
        f"    outs:\n    - path: {files.card}\n      md5: {md5(files.card.read_bytes()).hexdigest()}\n"
        "  train@x:\n    cmd: y\n"
    )
    return files


def test_a_card_counts_as_long_as_its_source_is_the_same() -> None:
    how = {"held_out": 0.5, "seed": 0, "gives": "images"}
    source = {"kind": "rings"}
    files = prepared(IMAGES, how)
    assert known_card(files, how, source) == IMAGES
    assert known_card(files, how | {"held_out": 0.2}, source) == IMAGES | {"count": None}
    (files.raw / "source.yaml").write_text("kind: rings\ncount: 8\n")  # as many bytes
    assert known_card(files, how, source) is None


@pytest.mark.parametrize("damage", ["", "{", "[1]", "null"])
def test_a_damaged_card_or_lock_is_not_believed(damage: str) -> None:
    how = {"held_out": 0.5, "seed": 0, "gives": "images"}
    files = prepared(IMAGES, how)
    for path in (files.card, Path("dvc.lock")):
        before = path.read_text()
        path.write_text(damage)
        assert known_card(files, how, {"kind": "rings"}) is None
        path.write_text(before)
    Path("dvc.lock").write_text(before.replace("  prepare@", "<<<<<<< HEAD\n  prepare@"))
    assert known_card(files, how, {"kind": "rings"}) == IMAGES  # its own entry is whole


def test_the_hash_of_a_folder_is_dvc_s() -> None:
    """Of this project's own lock."""
    entry = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]["prepare@digits"]
    (dependency,) = [one for one in entry["deps"] if one["path"] == "data/raw/digits"]
    assert same_folder(ROOT / "data/raw/digits", dependency)
    assert not same_folder(ROOT / "data/raw/digits", dependency | {"md5": "0.dir"})
    assert not same_folder(ROOT / "data/raw/digits", dependency | {"nfiles": 2})


def test_after_a_run_the_source_is_not_read_again(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the lock that DVC itself has written, of what `check` itself has resolved."""
    monkeypatch.chdir(finished.root)
    monkeypatch.setattr(prepare, "read_source", lambda _: pytest.fail("it was read"))
    params = checked(finished.params(), Path("params.yaml"))
    assert Survey(params).cards == {"digits": json.loads(Configuration("digits").card.read_text())}


def test_prepare_refuses_by_the_card_that_it_has_made(raw: Any) -> None:
    """Where `check` did not know the data: a folder of images, say."""
    own = IMAGES | {"count": {"train": 150, "held_out": 150}}
    raw["evaluation"]["extractor"] = {"kind": "auto", "share": 0.5, "epochs": 1, "seed": 0}
    with Path("params.yaml").open("w") as out:
        YAML().dump(raw, out)
    with pytest.raises(
        ParamsError, match=r"evaluation\.count: 448 is not allowed, allowed: at most 148"
    ):
        require_fit(own, has_own=False)
    assert require_fit(IMAGES, has_own=True) == []  # a judge that ships has seen none of them
    assert (
        "the floor is of 224 real data" in require_fit(IMAGES, has_own=False)[0]
    )  # (898 − 449) / 2
    assert require_fit(POINTS, has_own=False) == []
    for number in range(300):
        Configuration("mine").raw.mkdir(exist_ok=True)
        pixels = np.full((8, 8), number % 256, np.uint8)
        pixels[0, 0] = number // 256
        Image.fromarray(pixels).save(Configuration("mine").raw / f"{number}.png")
    Path("artifacts/resolved/datasets").mkdir(parents=True)
    how = {"held_out": 0.5, "seed": 0, "gives": "images"}
    Path("artifacts/resolved/datasets/mine.json").write_text(json.dumps(how))
    with pytest.raises(
        ParamsError, match=r"evaluation\.count: 448 is not allowed, allowed: at most 148"
    ):
        prepare.main(Configuration("mine"))
    assert not any(path.is_file() for path in Path("artifacts/data").rglob("*"))
    Path("params.yaml").write_text("active: 3\n")  # what check refuses is check's to say
    assert require_fit(own, has_own=False) == []


# The machine.


def test_a_device_that_is_not_here_is_said_and_does_not_stop_who_restores(raw: Any) -> None:
    raw["device"] = "cuda:77"
    (line,) = found_by_check(raw).warnings
    assert line.startswith("params.yaml: device: 'cuda:77': is not on this machine, which has ")


@pytest.mark.parametrize(("share", "refused"), [(1 / 20, True), (1 / 2, False)])
def test_memory_that_this_machine_does_not_have(
    raw: Any, monkeypatch: pytest.MonkeyPatch, share: float, refused: bool
) -> None:
    raw["active"]["models"] = ["ve"]
    raw["models"]["ve"]["network"] = {"unet": {"width": 64}}
    params = checked(raw, Path("params.yaml"))
    found = Survey(params)
    size = found.size("digits", "ve")
    assert size is not None
    block = found.resolved["models"]["ve"]
    network = block["network"]["unet"]
    least, about = memory.training_memory(size, block["training"], network)
    # weights, gradients, two moments, one average and the first part's gradients; losses and times of
    # 50 batches of 128; and the activations of one image in 2 bytes each
    assert least == 6 * 4 * size.parameters + 4 * 2 * 50 * 128 + 2 * size.activations
    assert about - least == 63 * 2 * size.activations  # a part has half of the batch
    of_each, _ = memory.training_memory(size, block["training"], network, shares=4)
    # Three quarters of moments and average, but for what four do not divide.
    assert 0 <= 9 * size.parameters - (least - of_each) < 4
    monkeypatch.setattr(survey, "machine_memory", lambda *_: int(least * share))
    (one,) = found.findings(refused=refused)
    assert not found.findings(refused=not refused)
    assert f"estimated to need at least {least / 2**30:.3g} GiB" in said_of(one)
    monkeypatch.setattr(memory, "machine_memory", lambda *_: least - 1)
    with pytest.raises(
        ParamsError, match=r"models\.ve: a training of it is estimated to need at least"
    ):
        memory.require_memory("models.ve", least, "cpu")


def test_a_training_refuses_before_it_takes_the_memory(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = checked(raw, Path("params.yaml")).model_dump(exclude_unset=True)["models"]["ve"]
    del block["network"]["mlp"]
    told: dict[str, Any] = {"models/digits-ve": block, "keeping": {"sharded": False}}
    for name, given in {
        "resolved": lambda name: told[name],
        "set_up_device": lambda _: torch.device("cpu"),
        "read_card": lambda _: IMAGES,
        "read_rows": lambda *_: {"train": np.zeros((4, 1, 8, 8), np.uint8)},
        "build_denoiser": lambda *_: pytest.fail("it was made"),
    }.items():
        monkeypatch.setattr(train, name, given)
    monkeypatch.setattr(train.Machine, "read", lambda: None)
    monkeypatch.setattr(memory, "machine_memory", lambda *_: 2**20)
    with pytest.raises(
        ParamsError, match=r"^params\.yaml: models\.ve: .* \(cpu\) has 0\.000977 GiB"
    ):
        train.main(Configuration("digits", "ve", 0), Ranks())


def test_the_curves_of_rare_points_take_memory_too(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of a million, every 100,000th step: 8 bytes each."""
    monkeypatch.setattr(survey, "machine_memory", lambda *_: 2**34)
    raw["models"]["ve"]["training"] = {"log_every": 100_000, "batch_size": 1_000_000}
    (one,) = Survey(checked(raw, Path("params.yaml"))).findings(refused=True)
    assert "estimated to need at least 745 GiB" in said_of(one)  # 8e11 / 2^30


def test_a_training_that_ends_before_its_warm_up_is_said(raw: Any) -> None:
    raw["models"]["ve"]["training"] = {"steps": 10}  # of the 20 that params.yaml has for all
    assert found_by_check(raw).warnings == [
        "params.yaml: models.ve.training.warmup_steps: 20: the training ends after 10 steps, when its "
        "learning rate has risen to 0.5 of what was meant"
    ]


def test_a_sampler_that_amplifies_the_noise_is_said(raw: Any) -> None:
    raw["active"]["samplers"] = ["euler_maruyama_5"]
    raw["active"]["models"] = ["ve"]
    (line,) = found_by_check(raw).warnings
    assert re.search(
        r"samplers\.euler_maruyama_5\.steps: 5: so few steps amplify .* 've' \d+", line
    )


def test_a_covariance_that_does_not_fit_is_said(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw["active"]["applications"] = ["inverse"]
    large = IMAGES | {"shape": [3, 512, 512]}
    monkeypatch.setattr(survey, "known_card", lambda *_: large)
    monkeypatch.setattr(survey, "machine_memory", lambda *_: 2**43)
    (one,) = Survey(checked(raw, Path("params.yaml"))).findings(refused=False)
    # 3 × 8 bytes × (3 · 512²)² = 13,824 GiB
    assert said_of(one) == (
        "params.yaml: active.applications[0]: 'inverse': the Gaussian beside it has a covariance of "
        "786,432 × 786,432, which takes at least 13,800 GiB; this machine has 8,190 GiB"
    )


def test_an_absurd_network_is_refused_without_being_made(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw["active"]["models"] = ["ve"]
    raw["models"]["ve"]["network"] = {"unet": {"width": 2**16}}
    monkeypatch.setattr(survey, "machine_memory", lambda *_: 2**34)
    with pytest.raises(
        ParamsError, match=r"models\.ve\.network\.unet: .* at least .* GiB; this machine"
    ):
        found_by_check(raw)


def test_refusals_come_alone_and_warnings_beside_a_right_configuration(
    raw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw["models"]["vp"]["sde"]["beta_max"] = 4.0
    found_by_check(raw)
    monkeypatch.setattr(checking, "say_of_git", lambda: None)
    checking.main([])
    out, err = capsys.readouterr()
    assert err.startswith("warning: params.yaml: models.vp.sde: {'kind': 'vp'")
    assert out.splitlines()[-1] == "params.yaml is valid"
    raw["models"]["ve"]["sde"]["sigma_max"] = 0.3
    with pytest.raises(ParamsError) as error:
        found_by_check(raw)
    (line,) = str(error.value).splitlines()
    assert "models.ve.sde" in line
    assert isinstance(Survey(checked(raw, Path("x"))).findings(refused=False)[0], Doubtful)
