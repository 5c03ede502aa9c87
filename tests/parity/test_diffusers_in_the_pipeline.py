"""A published model in the pipeline: what params.yaml says of it, and its conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scoremodel.io.denoisers import load
from scoremodel.io.diffusers import read_folder
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks
from tasks import prepare, train
from tasks.check import check
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.params.errors import ParamsError
from tasks.params.resolve import resolve, write
from tests.parity.test_diffusers_models import SMALL, published
from tests.workspace import Workspace

pytestmark = pytest.mark.parity
pytest.importorskip("diffusers")

PATH = "data/pretrained/tiny"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.create(tmp_path_factory.mktemp("pretrained") / "project")


@pytest.fixture
def block(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A published model of digits, in the workspace; return its block in params.yaml."""
    monkeypatch.chdir(workspace.root)
    one_channel = {**SMALL, "in_channels": 1, "out_channels": 1}
    _, digest = published(workspace.root / PATH, "DDPMScheduler", one_channel)
    return {"pretrained": {"path": PATH, "sha256": digest}}


def activate(workspace: Workspace, block: dict[str, Any], **active: Any) -> None:
    """Write params.yaml with a model `tiny` alone."""
    params = workspace.params()
    params["active"] |= {"models": ["tiny"], "samplers": ["heun"], "train_seeds": [0], **active}
    params["models"]["tiny"] = block
    workspace.write_params(params)


def test_its_files_say_what_it_is_and_it_is_converted(
    workspace: Workspace, block: dict[str, Any]
) -> None:
    activate(workspace, block)
    found = check()
    write(resolve(found.params))
    said = resolved("models/digits-tiny")
    assert said["sde"] == VP().config()
    assert said["preconditioning"] == "noise"
    assert list(said["network"]) == ["diffusers_unet2d"]
    assert "training" not in said
    code = resolved("code/sample@digits-tiny-0-heun")["modules"]
    assert "scoremodel/networks/diffusers_unet2d.py" in code
    assert "scoremodel/networks/unet.py" not in code

    prepare.main(Configuration("digits"))
    files = Configuration("digits", "tiny", 0)
    train.main(files, Ranks())
    ours, theirs = load(files.weights), read_folder(PATH, levels=17)
    assert ours.config() == theirs.config()
    before = theirs.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    assert ours.info["train_images"] == 0
    assert files.curves.read_text() == "step,loss\n0,\n"


def test_it_may_be_sampled_along_another_process(
    workspace: Workspace, block: dict[str, Any]
) -> None:
    sde = VE(0.02, 50.0).config()
    activate(workspace, {**block, "sde": sde})
    assert resolve(check().params)["models/digits-tiny"]["sde"] == sde


def test_a_network_of_diffusers_is_trained_as_its_scheduler_says(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    network = {**SMALL, "scheduler": {"_class_name": "DDPMScheduler", "prediction_type": "sample"}}
    sde = {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}
    activate(workspace, {"sde": sde, "network": {"diffusers_unet2d": network}})
    said = resolve(check().params)["models/digits-tiny"]
    card = {"shape": [1, 8, 8], "mean": [0.3], "std": 0.7, "levels": 17, "class_counts": {"a": 1}}
    denoiser = train.build_denoiser(said, card, VP(), 0)
    assert denoiser.config() | {"network": None} == {
        "network": None, "sde": VP().config(), "shape": [1, 8, 8], "mean": [0.0], "std": 1.0,
        "levels": 17, "classes": None, "preconditioning": "denoised", "energy": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "active", "said"),
    [
        ({"training": {"steps": 9}}, {}, "models.tiny.training: {'steps': 9} is not allowed, allowed: no "
         "such key beside pretrained"),
        ({"pretrained": {"path": PATH, "sha256": "0" * 64}}, {}, "models.tiny.pretrained: "
         f"{PATH}/unet/diffusion_pytorch_model.safetensors: sha256 is "),
        ({"pretrained": {"path": "data/pretrained/other", "sha256": "0" * 64}}, {},
         "models.tiny: data/pretrained/other/config.json: No such file or directory; allowed: a folder "),
        ({"pretrained": {"path": PATH}}, {}, "models.tiny.pretrained.sha256: missing"),
        ({"pretrained": None}, {}, "models.tiny.sde: missing"),
        ({}, {"samplers": ["heun_recent"]}, "samplers.heun_recent.ema_half_life: 10000.0 is not allowed, "
         "allowed: null for the active model 'tiny'"),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_line_before_anything_runs(
    change: dict[str, Any],
    active: dict[str, Any],
    said: str,
    workspace: Workspace,
    block: dict[str, Any],
) -> None:
    activate(workspace, block | change, **active)
    with pytest.raises(ParamsError) as error:
        check()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"params.yaml: {said}")


def test_images_of_another_size_and_several_seeds_are_noticed(
    workspace: Workspace, block: dict[str, Any]
) -> None:
    activate(workspace, block, train_seeds=[0, 1])
    (warning, *_) = check().warnings
    assert "active.train_seeds: [0, 1]: the pretrained model 'tiny' is the same for each" in warning
    _, digest = published(Path(PATH), "DDPMScheduler", {**SMALL, "sample_size": 32})
    activate(workspace, {"pretrained": {"path": PATH, "sha256": digest}})
    with pytest.raises(
        ParamsError, match=r"\(1, 8, 8\) do not fit this network, allowed: \(3, 32, 32\)"
    ):
        check()
