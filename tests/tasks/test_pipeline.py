"""The pipeline through real DVC, with a tiny configuration."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from tasks.arrays import read_rows
from tasks.hashes import content_hash

from scoremodel.data.scale import quantise
from scoremodel.denoiser import load
from scoremodel.evaluation.extractors.classifier import Classifier, accuracy, load_extractor
from scoremodel.processes.chain import NCSN, ncsnv2_levels
from scoremodel.processes.sde import VE
from scoremodel.samplers import Heun, sample
from tasks.sample import draw_labels
from tests.scoremodel.test_inception import StandIn
from tests.workspace import ROOT, Workspace


def test_the_record_holds_what_the_artifacts_say(finished: Workspace) -> None:
    from cleanfid import fid

    record = json.loads((finished.root / "results/records/digits-vp-0-heun.json").read_text())
    real = np.load(finished.root / "artifacts/features/digits.npz")
    fake = np.load(finished.root / "artifacts/features/digits-vp-0-heun.npz")
    assert record["nfe"] == 2 * 3 - 1
    assert record["train_images"] == 6 * 16
    for index, seed in enumerate((0, 1)):
        features = fake[f"seed_{seed}"].astype(np.float64)
        for split in ("held_out", "train"):
            distance = fid.fid_from_feats(features, real[split].astype(np.float64))
            assert record[split]["by_seed"][index] == pytest.approx(distance, rel=1e-5)
    assert record["held_out"]["std"] == pytest.approx(
        np.std(record["held_out"]["by_seed"], ddof=1),
        rel=1e-4,  # of rounded values
    )
    samples = np.load(finished.root / "artifacts/samples/digits-vp-0-heun.npz")
    assert samples["seed_0"].shape == (100, 1, 8, 8)
    assert samples["seed_0"].dtype == np.uint8
    assert samples["seed_0"].max() == 16


def test_the_digits_are_split_by_halves_with_equal_classes(finished: Workspace) -> None:
    from sklearn.datasets import load_digits

    arrays = read_rows(finished.root / "artifacts/data/digits/arrays")
    card = json.loads((finished.root / "artifacts/data/digits/card.json").read_text())
    assert card["count"] == {"train": 898, "held_out": 899}
    rows = np.concatenate([arrays["train"], arrays["held_out"]]).reshape(1797, 64)
    bundled = load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, bundled))
    train, held_out = (np.bincount(arrays[f"{side}_labels"]) for side in ("train", "held_out"))
    assert np.abs(train - held_out).max() <= 1
    scaled = arrays["train"] / 8 - 1
    assert card["mean"] == pytest.approx([scaled.mean()])
    assert card["std"] == pytest.approx(scaled.std())


def test_a_second_repro_runs_nothing(finished: Workspace) -> None:
    before = finished.lock()
    assert "Running stage" not in finished.dvc("repro")
    assert "up to date" in finished.dvc("status")
    assert finished.lock() == before


@pytest.mark.slow
def test_a_forced_repro_gives_the_same_bytes(copied: Workspace) -> None:
    before = copied.lock()
    ledger = sorted(path.name for path in (copied.root / "results/ledger").iterdir())
    assert "Running stage 'train@digits-vp-0'" in copied.dvc("repro", "--force")
    assert copied.lock() == before
    assert sorted(path.name for path in (copied.root / "results/ledger").iterdir()) == ledger


def test_declared_code_is_what_the_stages_import(finished: Workspace) -> None:
    graph = YAML(typ="safe", pure=True).load(finished.root / "dvc.yaml")["stages"]
    del graph["study"]  # not active: tests/tasks/test_applications.py
    imported = finished.imports()
    assert set(imported) >= set(graph)
    for stage, definition in graph.items():
        declared = {path for path in definition["deps"] if path.endswith((".py", ".j2"))}
        unseen = {path for path in declared if path.endswith(".j2")}  # a template is no import
        unseen |= {"scoremodel/evaluation/inception.py"}  # not with a classifier
        assert imported[stage] <= declared, stage
        assert declared - imported[stage] <= unseen, stage


def changed_stages(workspace: Workspace) -> set[str]:
    return set(json.loads(workspace.dvc("status", "--json", "--quiet", status=None) or "{}"))


@pytest.mark.parametrize(
    ("place", "value", "changed"),
    [
        (
            ["samplers", "heun", "steps"],
            5,
            {"sample@digits-vp-0-heun", "evaluate@digits-vp-0-heun"},
        ),
        (["models", "vp", "training", "steps"], 7, {"train@digits-vp-0"}),
        (["models", "ve", "training", "steps"], 7, set()),
        (["datasets", "digits", "held_out"], 0.4, {"prepare@digits"}),
        (["samplers", "euler_18", "steps"], 9, set()),
    ],
)
def test_a_changed_key_touches_only_what_depends_on_it(
    copied: Workspace, place: list[str], value: float, changed: set[str]
) -> None:
    params = copied.params()
    block = params
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    copied.write_params(params)
    status = copied.run("dvc", "status", "--json").stdout
    assert set(json.loads(status)) == changed | {"check"}


def test_an_inactive_configuration_s_leftovers_do_not_appear(copied: Workspace) -> None:
    params = copied.params()
    params["active"]["samplers"] = ["heun"]
    copied.write_params(params)
    assert "Running stage 'train" not in copied.dvc("repro")
    assert list(pd.read_csv(copied.root / "results/table.csv")["sampler"]) == ["heun"]
    assert "euler_maruyama" not in (copied.root / "reports/index.html").read_text()
    left = copied.root / "results/records/digits-vp-0-gone.json"  # as an older run may leave it
    left.write_text((copied.root / "results/records/digits-vp-0-heun.json").read_text())
    copied.dvc("repro", "--force", "--single-item", "report")
    assert list(pd.read_csv(copied.root / "results/table.csv")["sampler"]) == ["heun"]


def test_a_clone_restores_everything_from_the_remote_and_trains_nothing(
    copied: Workspace, tmp_path: Path
) -> None:
    params = copied.params()
    params["active"]["samplers"] = ["heun"]  # what the other sampler left behind must not matter
    copied.write_params(params)
    copied.dvc("repro")
    copied.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    copied.git("add", "-A")
    copied.git("commit", "-qm", "results")
    copied.dvc("push")
    copied.git("clone", "-q", str(copied.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    clone.spied.mkdir()
    said = clone.dvc("repro", "--pull")
    assert "Running stage" not in said
    for name in ("artifacts/models/digits-vp-0.safetensors", "reports/index.html"):
        assert (clone.root / name).read_bytes() == (copied.root / name).read_bytes()
    assert clone.git("status", "--porcelain") == ""


def test_dvc_shows_metrics_params_and_plots(finished: Workspace) -> None:
    shown = json.loads(finished.run("dvc", "metrics", "show", "--json").stdout)
    records = shown[""]["data"]
    assert records["results/records/digits-vp-0-heun.json"]["data"]["nfe"] == 5
    plots = json.loads(finished.run("dvc", "plots", "show", "--json").stdout)
    assert "errors" not in plots
    curve, bands = (
        plots["data"][f"artifacts/curves/digits-vp-0{end}.csv"][0]["content"]
        for end in ("", "-bands")
    )
    assert "t in [0.25, 0.5]" in str(bands)
    assert "step" in str(curve)
    assert any(name.endswith("digits-vp-0-heun.png") for name in plots["data"])


def test_a_wrong_key_is_said_by_check_and_by_bare_dvc(copied: Workspace) -> None:
    params = copied.params()
    params["samplers"]["heun"]["step"] = params["samplers"]["heun"].pop("steps")
    copied.write_params(params)
    line = (
        "params.yaml: samplers.heun.step: unknown key, allowed: kind, guidance, path, ema_half_life"
    )
    assert line in copied.python("-m", "tasks.check", status=2)
    assert line in copied.python("-m", "flows.pipeline", status=2)
    before = (copied.root / "artifacts/models/digits-vp-0.safetensors").read_bytes()
    said = copied.dvc("repro", status=255)
    assert line in said
    assert "Running stage 'train" not in said
    assert (copied.root / "artifacts/models/digits-vp-0.safetensors").read_bytes() == before


def test_the_ledger_refuses_another_value_for_the_same_inputs(copied: Workspace) -> None:
    (row, *_) = sorted((copied.root / "results/ledger").glob("*.json"))
    content = json.loads(row.read_text())
    content["values"]["held_out"]["by_seed"][0] += 1
    row.write_text(json.dumps(content))
    assert f"{row.name}: was edited" in copied.python("-m", "tasks.report", status=2)
    del content["checksum"]
    row.write_text(json.dumps(content | {"checksum": content_hash(content)}))
    said = copied.python("-m", "tasks.report", status=2)
    assert row.name in said
    assert "not deterministic" in said
    assert "then, [" in said
    row.write_text("<<<<<<< HEAD")
    assert f"{row.name}: not a row" in copied.python("-m", "tasks.report", status=2)


def test_the_readme_s_snippet_draws_the_pipeline_s_samples(finished: Workspace) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    here = snippet.replace("digits-ve-0", "digits-vp-0").replace("steps=18", "steps=3")
    assert here != snippet
    here += (
        "import numpy as np\n"
        "from scoremodel.data.scale import quantise\n"
        "drawn = np.load('artifacts/samples/digits-vp-0-heun.npz')['seed_0'][:16]\n"
        "assert np.array_equal(quantise(images, model.levels).numpy(), drawn)\n"
    )
    finished.python("-c", here)


def test_another_extractor_s_file_is_checked_before_anything_runs(copied: Workspace) -> None:
    params = copied.params()
    extractor = {"kind": "torchscript", "path": "net.pt", "sha256": "0" * 64}
    params["evaluation"]["extractor"] = extractor
    copied.write_params(params)
    where = "error: params.yaml: evaluation.extractor"
    said = copied.python("-m", "tasks.check", status=2)
    assert f"{where}.path: 'net.pt' is no file" in said
    (copied.root / "net.pt").write_bytes(b"")
    said = copied.python("-m", "tasks.check", status=2)
    assert f"{where}.sha256: net.pt has e3b0c442" in said  # SHA-256 of nothing
    params["evaluation"]["extractor"] = {"kind": "inception", "mode": "clean", "path": "net.pt"}
    copied.write_params(params)
    said = copied.python("-m", "tasks.check", status=2)
    assert "evaluation.extractor.sha256: None is not allowed, allowed: a path and its" in said


@pytest.mark.slow
def test_inception_from_a_file_judges_and_is_reproduced(copied: Workspace) -> None:
    """A stand-in with Inception's calls: only its distances are called FID."""
    net = copied.root / "weights/net.pt"
    net.parent.mkdir()
    torch.jit.script(StandIn().eval()).save(net)
    (copied.root / ".gitignore").open("a").write("/weights/\n")
    params = copied.params()
    params["active"]["samplers"] = ["heun"]
    params["evaluation"]["extractor"] = {
        "kind": "inception",
        "mode": "clean",
        "path": "weights/net.pt",
        "sha256": hashlib.sha256(net.read_bytes()).hexdigest(),
    }
    copied.write_params(params)
    copied.git("add", "-A")
    copied.git("commit", "-qm", "inception")
    copied.dvc("repro")
    record = json.loads((copied.root / "results/records/digits-vp-0-heun.json").read_text())
    assert record["metric"].startswith("FID (clean-fid clean, ")
    real = load_extractor(copied.root / "artifacts/extractors/digits.safetensors")
    held_out = read_rows(copied.root / "artifacts/data/digits/arrays")["held_out"]
    features = np.load(copied.root / "artifacts/features/digits.npz")["held_out"]
    again = real.features(torch.from_numpy(np.array(held_out[:4]))).numpy()
    np.testing.assert_allclose(features[:4], again, rtol=1e-5)
    assert record["warnings"][0] == "100 samples do not determine the covariance of 2048 features"
    rows = json.loads(copied.python("-m", "tasks.results", "list", "--format", "json"))
    (key,) = [row["key"] for row in rows if row["metric"] == record["metric"]]
    said = copied.python("-m", "tasks.results", "reproduce", key)
    assert f"the same: {record['held_out']['mean']:g}, seed by seed" in said


@pytest.mark.slow
def test_chains_and_classes_go_through_the_pipeline(copied: Workspace) -> None:
    """NCSN with annealed Langevin, DDPM with ancestral sampling, and a model of classes."""
    params = copied.params()
    params["active"] |= {
        "models": ["ncsn", "ddpm", "vp_classes"],
        "samplers": ["annealed_langevin", "ancestral"],
    }
    for name in params["active"]["models"]:
        params["models"][name]["training"] |= params["models"]["vp"]["training"] | {
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
    classifier = load_extractor(copied.root / "artifacts/extractors/digits.safetensors")
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


def test_a_sampler_s_path_is_the_process_it_samples_along(copied: Workspace) -> None:
    copied.python("-m", "tasks.sample", "digits", "vp", "0", "heun_on_ve")
    drawn = np.load(copied.root / "artifacts/samples/digits-vp-0-heun_on_ve.npz")["seed_0"]
    model = load(copied.root / "artifacts/models/digits-vp-0.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options: dict[str, Any] = {"batch_size": 64}
    along, own = (
        quantise(sample(model, Heun(18), 64, 0, **options, process=process).x, 17).numpy()
        for process in (VE(0.02, 100.0), None)
    )
    torch.set_num_threads(threads)
    assert np.array_equal(drawn[:64], along)
    assert not np.array_equal(along, own)


@pytest.mark.parametrize(
    ("models", "samplers", "line"),
    [
        (["ddpm"], ["euler_maruyama"], "sampler 'euler_maruyama' does not work with model 'ddpm': "
         "euler_maruyama needs a process with drift and diffusion, ddpm has only levels"),
        (["ncsn"], ["euler_maruyama"], "euler_maruyama needs a process with drift and diffusion"),
        (["vp"], ["annealed_langevin"], "annealed_langevin needs steps on vp, which has no levels"),
        (["vp"], ["heun_guided"], "samplers.heun_guided.guidance: 2.0 is not allowed, allowed: 1.0"),
    ],
)  # fmt: skip
def test_pairs_that_do_not_go_together_are_refused_before_any_work(
    copied: Workspace, models: list[str], samplers: list[str], line: str
) -> None:
    params = copied.params()
    params["active"] |= {"models": models, "samplers": samplers}
    copied.write_params(params)
    said = copied.dvc("repro", status=255)
    assert line in said
    assert "Running stage 'train" not in said


@pytest.mark.slow
def test_digits_of_an_asked_class_are_of_that_class(tmp_path: Path) -> None:
    """The shipped class-conditional model, with guidance: 97 % of more than 1,000 samples."""
    workspace = Workspace.create(tmp_path / "project")
    params = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    params["active"] |= {"models": ["vp_classes"], "samplers": ["heun_guided"]}
    workspace.write_params(params)
    workspace.dvc("repro")
    record = json.loads(
        (workspace.root / "results/records/digits-vp_classes-0-heun_guided.json").read_text()
    )
    assert record["count"] * len(record["sampling_seeds"]) >= 1000
    assert record["nfe"] == 2 * 35
    assert record["agreement"]["mean"] >= 0.97


@pytest.mark.slow
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
