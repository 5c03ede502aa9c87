"""Each preset of a published training runs from its source to its record, cut down to toy size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scoremodel.data.exchange import write_images
from tests.workspace import Workspace

SMALL: dict[str, tuple[int, dict[str, str], dict[str, int]]] = {
    # Side of the images; what else is cut; sampler → network calls of a sample.
    "cifar10_ncsnpp_ve": (
        32,
        {"samplers.predictor_corrector_published.steps": "5"},
        {"predictor_corrector_published": 9},
    ),
    "cifar10_ddpmpp_vp": (
        32,
        {
            "samplers.euler_maruyama_published.steps": "5",
            "samplers.runge_kutta_published.rtol": "0.1",
            "samplers.runge_kutta_published.atol": "0.1",
        },
        {"euler_maruyama_published": 5},
    ),
    "cifar10_edm_ve": (32, {}, {"heun_18": 35}),
    "cifar10_edm_vp": (32, {}, {"heun_18": 35}),
    "ffhq64_edm": (64, {}, {"heun_40": 79}),
    "imagenet64_edm2_xs": (64, {"models.{model}.training.parts": "2"}, {"heun_32": 63}),
}
NETWORKS = {"cifar10_ncsnpp_ve": "ncsnpp", "cifar10_edm_ve": "ncsnpp", "imagenet64_edm2_xs": "edm2"}


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL)
def test_a_published_training_runs_at_toy_size(name: str, tmp_path: Path) -> None:
    side, more, calls = SMALL[name]
    workspace = Workspace.create(tmp_path / "w")
    dataset = name.split("_")[0]
    raw = workspace.root / "data/raw" / dataset
    raw.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    ground = np.kron(draw.integers(0, 200, (120, 3, 4, 4)), np.ones((side // 4, side // 4), int))
    x = (ground + draw.integers(0, 50, ground.shape)).astype(np.uint8)
    write_images(raw / "images.zip", x, np.arange(120) % 2, form="zip")
    (raw / "source.yaml").write_text("{kind: archive, path: images.zip}\n")
    workspace.git("add", "-A")
    workspace.git("commit", "-qm", "images")
    network = f"models.{name}.network.{NETWORKS.get(name, 'ddpmpp')}"
    training = f"models.{name}.training"
    cut = {
        f"datasets.{dataset}.held_out": "0.5",
        f"{network}.width": "16",
        f"{network}.blocks": "1",
        f"{training}.steps": "3",
        f"{training}.batch_size": "4",
        f"{training}.log_every": "1",
        "evaluation.count": "16",
        "evaluation.sampling_seeds": "[0]",
        "evaluation.panel": "0",
    } | {key.format(model=name): value for key, value in more.items()}
    judge = "{kind:classifier,share:0.5,epochs:1,seed:0}"  # for want of Inception's weights
    arguments = workspace.python("-m", "tasks.check", "--preset", name)
    given = [*arguments.removesuffix("\0").split("\0")]
    for one in (
        *(f"++{key}={value}" for key, value in cut.items()),
        "~evaluation.extractor",
        f"++evaluation.extractor={judge}",
    ):
        given += ["--set-param", one]
    workspace.dvc("exp", "run", *given)
    for sampler, nfe in calls.items():
        path = workspace.root / f"results/records/{dataset}-{name}-0-{sampler}.json"
        record = json.loads(path.read_text())
        assert record["nfe"] == nfe
        assert record["train_images"] == 12
        assert record["train"]["mean"] > 0
