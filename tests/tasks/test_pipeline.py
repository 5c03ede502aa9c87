"""The pipeline through real DVC, with a tiny configuration."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from scoremodel.data.scale import quantise
from scoremodel.evaluation.distance import frechet_distance
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.resampling import held_out_counts
from scoremodel.io.denoisers import load
from scoremodel.processes.ve import VE
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from tasks.check import check
from tasks.files.arrays import read_rows
from tasks.files.hashes import content_hash
from tasks.params.errors import ParamsError
from tasks.params.load import read_yaml
from tests.workspace import ROOT, Workspace

GATHERED = ("artifacts/curves", "artifacts/shown", "results/records")


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
    by_seed = record["held_out"]["by_seed"]
    assert record["held_out"]["std"] == pytest.approx(
        np.std(by_seed, ddof=1),
        abs=5e-6 * max(by_seed),  # the sixth digit of each is rounded
    )
    assert record["width"] == 64
    # The first of the sets of held-out rows, written out: the mean over the seeds' distances to it.
    reference = Reference(
        real["train"], real["held_out"], record["count"], finished.params()["seed"]
    )
    (counts,) = held_out_counts(reference, 1)
    rows = np.repeat(real["held_out"], counts, axis=0)
    distances = [frechet_distance(fake[name], rows) for name in fake.files if name != "info"]
    assert len(record["resampled"]["held_out"]) == 200
    assert record["resampled"]["held_out"][0] == pytest.approx(np.mean(distances), rel=1e-5)
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


def test_changed_keys_touch_only_what_depends_on_them(copied: Workspace) -> None:
    """Which files of artifacts/resolved a key changes: tests/tasks/test_resolved.py."""
    params = copied.params()
    params["samplers"]["heun"]["steps"] = 5
    params["models"]["vp"]["training"]["steps"] = 7
    params["models"]["ve"]["training"] = {"steps": 7, "warmup_steps": 7}
    params["samplers"]["euler"]["steps"] = 9
    copied.write_params(params)
    copied.python("-m", "tasks.check", "--stage")
    status = json.loads(copied.run("dvc", "status", "--json").stdout)
    runs = {"train@digits-vp-0", "sample@digits-vp-0-heun", "evaluate@digits-vp-0-heun"}
    assert set(status) == runs | {"check"}


def test_an_inactive_configuration_s_leftovers_do_not_appear_and_a_clone_trains_nothing(
    copied: Workspace, tmp_path: Path
) -> None:
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
    assert not left.exists()
    assert "Running stage" not in copied.dvc("repro")
    # A clone, which has no leftovers, restores everything from the remote.
    clone = cloned(copied, tmp_path)
    said = clone.dvc("repro", "--pull")
    assert "Running stage" not in said
    for name in ("artifacts/models/digits-vp-0.safetensors", "reports/index.html"):
        assert (clone.root / name).read_bytes() == (copied.root / name).read_bytes()
    assert clone.git("status", "--porcelain") == ""


def cloned(workspace: Workspace, folder: Path) -> Workspace:
    """Return a clone of a workspace whose results are committed, and in a DVC remote."""
    workspace.dvc("remote", "add", "--default", "shared", str(folder / "remote"))
    workspace.git("add", "-A")
    workspace.git("commit", "-qm", "results")
    workspace.dvc("push")
    workspace.git("clone", "-q", str(workspace.root), str(folder / "clone"))
    clone = Workspace(folder / "clone")
    clone.spied.mkdir()
    return clone


def test_params_edited_and_edited_back_leave_nothing_that_a_clone_lacks(
    copied: Workspace, tmp_path: Path
) -> None:
    """Also where DVC could restore `check` as it was, without what it puts away."""
    params, before = copied.params(), YAML(typ="safe").load(copied.lock())["stages"]
    there = {path for folder in GATHERED for path in (copied.root / folder).iterdir()}
    copied.write_params(
        params | {"active": params["active"] | {"train_seeds": [1], "samplers": ["heun"]}}
    )
    copied.dvc("repro")
    assert not there & {
        path for folder in GATHERED for path in (copied.root / folder).glob("*-0-*")
    }
    copied.write_params(params)
    said = copied.dvc("repro")
    assert "Running stage 'train" not in said
    assert {path for folder in GATHERED for path in (copied.root / folder).iterdir()} == there
    after = YAML(typ="safe").load(copied.lock())["stages"]
    assert {name: after[name] for name in before} == before

    # What git and DVC leave of another commit's, where check has nothing to do.
    for path in there:
        shutil.copy(path, path.with_name(path.name.replace("digits", "gone")))
    said = copied.dvc("repro")
    assert re.findall("Running stage '(.*)'", said) == ["pictures"]  # which puts away all
    assert {path for folder in GATHERED for path in (copied.root / folder).iterdir()} == there
    assert YAML(typ="safe").load(copied.lock())["stages"] == after

    clone = cloned(copied, tmp_path)
    clone.dvc("pull")
    assert "Running stage" not in clone.dvc("repro")
    assert clone.git("status", "--porcelain") == ""


def test_dvc_shows_metrics_params_and_plots(finished: Workspace) -> None:
    shown = json.loads(finished.run("dvc", "metrics", "show", "--json").stdout)
    headline = shown[""]["data"]["results/metrics.json"]["data"]["digits"]["vp"]["heun"]
    record = json.loads((finished.root / "results/records/digits-vp-0-heun.json").read_text())
    assert headline["held_out"] == pytest.approx(record["held_out"]["mean"], rel=1e-5)
    assert headline["ratio_to_floor"] == pytest.approx(record["ratio_to_floor"], rel=1e-4)
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
        "params.yaml: samplers.heun.step: unknown key, allowed: guidance, autoguide, path, ema_half_life, "
        "ema_std, precision, kind"
    )
    assert line in copied.python("-m", "tasks.check", status=2)
    before = (copied.root / "artifacts/models/digits-vp-0.safetensors").read_bytes()
    said = copied.dvc("repro", status=255)
    assert line in said
    assert "Running stage 'train" not in said
    assert (copied.root / "artifacts/models/digits-vp-0.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_wrong_key_is_said_by_the_flow_too(copied: Workspace) -> None:
    params = copied.params()
    params["threads"] = 0
    copied.write_params(params)
    line = "params.yaml: threads: 0 is not allowed, allowed: an integer from 1 to 1,024"
    assert line in copied.python("-m", "flows.pipeline", status=2)


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go to a folder in which `check` finds what it reads, and return the parameters to be changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data/raw/digits", tmp_path / "data/raw/digits")
    return read_yaml(ROOT / "params.yaml")


def refusal(params: Any) -> str:
    """Return what `check` says of the parameters, which it does not accept."""
    with Path("params.yaml").open("w") as out:
        YAML().dump(params, out)
    with pytest.raises((ParamsError, ValueError)) as error:
        check()
    return str(error.value)


def test_another_extractor_s_file_is_checked_before_anything_runs(folder: Any) -> None:
    extractor = {"kind": "torchscript", "path": "net.pt", "sha256": "0" * 64}
    folder["evaluation"]["extractor"] = extractor
    where = "params.yaml: evaluation.extractor"
    assert f"{where}.path: 'net.pt' is no file" in refusal(folder)
    Path("net.pt").write_bytes(b"")
    assert f"{where}.sha256: net.pt has e3b0c442" in refusal(folder)  # SHA-256 of nothing
    folder["evaluation"]["extractor"] = {"kind": "inception", "mode": "clean", "path": "net.pt"}
    said = "evaluation.extractor.sha256: None is not allowed, allowed: a path and its"
    assert said in refusal(folder)


def test_an_active_data_set_without_a_folder_is_named(folder: Any) -> None:
    folder["active"]["datasets"] = ["digits", "mixture"]
    assert "active.datasets: 'mixture' has no folder data/raw/mixture; put a" in refusal(folder)


def test_samples_from_elsewhere_that_are_not_there_are_named(folder: Any) -> None:
    folder["active"]["external"] = ["edm"]
    allowed = "active.external[0]: 'edm' is not allowed, allowed: one of: none, there is none"
    assert allowed in refusal(folder)
    folder["external"] = {"edm": {}}
    there = Path("data/samples/digits/edm")
    said = (
        f"active.external: 'edm' has no samples of 'digits' in {there}; put images there, or files"
    )
    for make in (lambda: None, lambda: there.mkdir(parents=True), (there / "notes.txt").touch):
        make()
        assert said in refusal(folder)
    folder["external"]["vp"] = {}
    assert "external.vp: 'vp' is not allowed, allowed: a name that no model has" in refusal(folder)
    del folder["external"]["vp"]
    folder["samplers"]["external"] = {"like": "heun"}
    assert "samplers.external: 'external' is not allowed, allowed: another name" in refusal(folder)


def test_a_sampler_s_path_is_the_process_it_samples_along(copied: Workspace) -> None:
    params = copied.params()
    params["active"]["samplers"] = ["heun_on_ve"]
    copied.write_params(params)
    copied.python("-m", "tasks.check", "--stage")
    copied.python("-m", "tasks.sample", "digits", "vp", "0", "heun_on_ve")
    drawn = np.load(copied.root / "artifacts/samples/digits-vp-0-heun_on_ve.npz")["seed_0"]
    model = load(copied.root / "artifacts/models/digits-vp-0.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options: dict[str, Any] = {"batch_size": 64}
    along, own = (
        quantise(sample(model, Heun(3), 64, 0, **options, process=process).x, 17).numpy()
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
    folder: Any, models: list[str], samplers: list[str], line: str
) -> None:
    folder["active"] |= {"models": models, "samplers": samplers}
    assert line in refusal(folder)
