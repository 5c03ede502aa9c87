"""Other kinds of data, extractors, processes and samplers, through the same commands."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.evaluation.extractors.classifier import Classifier, accuracy
from scoremodel.io.denoisers import load
from scoremodel.processes.ncsn import NCSN, ncsnv2_levels
from tasks.files.arrays import read_rows
from tasks.sample import draw_labels
from tests.scoremodel.test_inception import StandIn
from tests.workspace import ROOT, Workspace

pytestmark = pytest.mark.slow


def test_inception_from_a_file_judges_and_is_reproduced(copied: Workspace) -> None:
    """A stand-in with Inception's calls: only its distances are called FID."""
    net = copied.root / "weights/net.pt"
    net.parent.mkdir()
    torch.jit.script(StandIn().eval()).save(net)
    (copied.root / ".gitignore").open("a").write("/weights/\n")
    copied.git("add", "-A")
    copied.git("commit", "-qm", "another judge")
    before, params = copied.params(), copied.params()
    params["active"]["samplers"] = ["heun"]
    params["evaluation"]["extractor"] = {
        "kind": "inception",
        "mode": "clean",
        "path": "weights/net.pt",
        "sha256": hashlib.sha256(net.read_bytes()).hexdigest(),
    }
    copied.write_params(params)
    copied.dvc("repro")
    record = json.loads((copied.root / "results/records/digits-vp-0-heun.json").read_text())
    assert record["metric"].startswith("FID (clean-fid clean, ")
    real = load_extractor(copied.root / "artifacts/extractors/digits/judge.safetensors")
    held_out = read_rows(copied.root / "artifacts/data/digits/arrays")["held_out"]
    features = np.load(copied.root / "artifacts/features/digits.npz")["held_out"]
    again = real.features(torch.from_numpy(np.array(held_out[:4]))).numpy()
    np.testing.assert_allclose(features[:4], again, rtol=1e-5)
    assert record["warnings"][0] == "100 samples do not determine the covariance of 2048 features"
    rows = json.loads(copied.python("-m", "tasks.results", "list", "--format", "json"))
    (key,) = [row["key"] for row in rows if row["metric"] == record["metric"]]
    copied.write_params(before)  # of which file to read only the row says now
    said = copied.python("-m", "tasks.results", "reproduce", key)
    assert f"the same: {record['held_out']['mean']:g}, seed by seed" in said


def test_chains_and_classes_go_through_the_pipeline(copied: Workspace) -> None:
    """NCSN with annealed Langevin, DDPM with ancestral sampling, and a model of classes."""
    params = copied.params()
    params["active"] |= {
        "models": ["ncsn", "ddpm", "vp_classes"],
        "samplers": ["annealed_langevin", "ancestral"],
    }
    for name in params["active"]["models"]:
        params["models"][name]["training"] = params["models"]["vp"]["training"] | {
            "label_dropout": 0.2 if name == "vp_classes" else None
        }
        params["models"][name]["network"] = params["models"]["vp"]["network"]
    params["samplers"]["annealed_langevin"] |= {"steps": 4, "steps_per_level": 2}
    params["samplers"]["ancestral"] |= {"steps": 3}
    params["evaluation"]["sampling_seeds"] = [0]
    copied.write_params(params)
    pairs = {"ncsn": "annealed_langevin", "ddpm": "ancestral", "vp_classes": "ancestral"}
    copied.dvc("repro", *(f"evaluate@digits-{model}-0-{name}" for model, name in pairs.items()))

    arrays = read_rows(copied.root / "artifacts/data/digits/arrays")
    train = torch.from_numpy(arrays["train"]).float() / 8 - 1
    ladder = load(copied.root / "artifacts/models/digits-ncsn-0.safetensors").process
    farthest = float(torch.cdist(train.flatten(1), train.flatten(1)).max())
    assert isinstance(ladder, NCSN)
    assert ladder.sigma_max == pytest.approx(farthest, rel=1e-5)
    assert ladder.levels == ncsnv2_levels(0.02, ladder.sigma_max, 64)
    records = {
        model: json.loads(
            (copied.root / f"results/records/digits-{model}-0-{name}.json").read_text()
        )
        for model, name in pairs.items()
    }
    nfe = {model: record["nfe"] for model, record in records.items()}
    assert nfe == {"ncsn": 4 * 2 + 1, "ddpm": 3, "vp_classes": 3}

    assert records["ncsn"]["agreement"] is None
    classifier = load_extractor(copied.root / "artifacts/extractors/digits/judge.safetensors")
    assert isinstance(classifier, Classifier)
    counts = np.bincount(arrays["train_labels"]).tolist()
    labels = draw_labels(counts, 100, 0)
    assert labels is not None
    expected = torch.tensor(counts) / len(train) * 100
    assert float(((labels.bincount(minlength=10) - expected) ** 2 / expected).sum()) < 27.9  # 0.1 %
    samples = np.load(copied.root / "artifacts/samples/digits-vp_classes-0-ancestral.npz")
    features = classifier.features(torch.from_numpy(samples["seed_0"]))
    said = accuracy(classifier, features, labels)
    assert records["vp_classes"]["agreement"]["mean"] == pytest.approx(said, abs=1e-5)


@pytest.mark.long
def test_digits_of_an_asked_class_are_of_that_class(tmp_path: Path) -> None:
    """The shipped class-conditional model, with guidance: 97 % less four standard errors."""
    workspace = Workspace.create(tmp_path / "project")
    params = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    params["threads"] = 1  # two wait for each other beside other tests
    params["active"] |= {"models": ["vp_classes"], "samplers": ["heun_guided"]}
    workspace.write_params(params)
    workspace.dvc("repro")
    record = json.loads(
        (workspace.root / "results/records/digits-vp_classes-0-heun_guided.json").read_text()
    )
    assert record["count"] * len(record["sampling_seeds"]) >= 1000
    assert record["nfe"] == 2 * 35
    # Each machine trains another model to the last digit; all samples of one share it.
    assert record["agreement"]["mean"] >= 0.97 - 4 * (0.97 * 0.03 / 1000) ** 0.5


@pytest.mark.parametrize("dataset", ["mixture", "two_moons", "fashion_mnist", "folder"])
def test_other_data_sets_run_through_the_same_commands(
    dataset: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    workspace = Workspace.create(tmp_path / "project")
    params = workspace.params()
    params["active"]["datasets"] = [dataset]
    if dataset == "fashion_mnist":
        real_images = request.getfixturevalue("real_images")
        shutil.copytree(
            real_images / "FashionMNIST", workspace.root / "data/torchvision/FashionMNIST"
        )
        params["datasets"][dataset]["limit"] = 1000
    if dataset == "folder":  # unlabelled colour images, as a person would add them
        folder = workspace.root / "data/raw/folder"
        folder.mkdir()
        draw = np.random.default_rng(0)
        for index in range(300):
            pixels = np.linspace(0, 200, 12)[:, None, None] + draw.integers(0, 55, (12, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03}.png")
        workspace.dvc("add", "data/raw/folder")
        params["datasets"]["folder"] = {"held_out": 0.4}
        params["models"]["vp"]["training"]["flip"] = True
    workspace.write_params(params)
    workspace.dvc("repro")
    rows = pd.read_csv(workspace.root / "results/table.csv")
    assert list(rows["dataset"]) == [dataset, dataset]
    extractor = "identity" if dataset in ("mixture", "two_moons") else "classifier"
    assert rows["metric"].str.startswith(f"FD ({extractor} ").all()
    assert (rows["held_out_mean"] > 0).all()
    assert "up to date" in workspace.dvc("status")
