"""Samples from elsewhere go through the same stages as our own, to the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scoremodel.data.exchange import ImageSet, write_images
from tasks.external import class_numbers, disjoint
from tests import shared
from tests.tasks.test_pipeline import cloned
from tests.workspace import Workspace

NAME = "digits-others-0-external"
SAID = {"nfe": None, "source": "the models' own, by way of others' files"}


def stages_run(said: str) -> list[str]:
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


def record(workspace: Workspace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (workspace.root / f"results/records/{name}.json").read_text()
    )
    return found


def results(workspace: Workspace, *arguments: str, status: int = 0) -> str:
    return workspace.python("-m", "tasks.results", *arguments, status=status)


def given(workspace: Workspace, **said: Any) -> None:
    """Make the samples of Heun's method, as ADM's files hold them, samples from elsewhere."""
    folder = workspace.root / "data/samples/digits/others"
    own = np.load(workspace.root / "artifacts/samples/digits-vp-0-heun.npz")
    for seed in (0, 1, 2):  # a file each, whose order is kept
        write_images(folder / f"{seed}.npz", own[f"seed_{seed}"], levels=17)
    workspace.dvc("add", "-q", str(folder.relative_to(workspace.root)))
    params = workspace.params()
    params["active"]["external"] = ["others"]
    params["external"] = {"others": SAID | said}
    workspace.write_params(params)


@pytest.fixture(scope="module")
def judged(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """Return a workspace in which samples from elsewhere are judged, and what DVC said meanwhile."""
    workspace = shared.copy(finished, tmp_path_factory.mktemp("judged"))
    given(workspace)
    workspace.git("add", "-A")
    workspace.git("commit", "-qm", "others' samples")
    return workspace, workspace.dvc("repro")


def row_of(workspace: Workspace) -> dict[str, Any]:
    rows = map(json.loads, map(Path.read_text, workspace.root.glob("results/ledger/*.json")))
    (found,) = [row for row in rows if row["configuration"] == NAME]
    return dict(found)


def test_our_own_samples_in_others_files_are_judged_to_the_bit_as_they_are_here(
    judged: tuple[Workspace, str],
) -> None:
    workspace, said = judged
    assert [name for name in stages_run(said) if "@" in name] == [
        "external@digits-others",
        "external_features@digits-others",
        "external_evaluate@digits-others",
    ]
    ours, other = record(workspace, "digits-vp-0-heun"), record(workspace, NAME)
    about = {
        "model", "sampler", "sampler_kind", "steps", "guidance", "ema_half_life", "ema_std", "nfe",
        "warnings", "parameters", "train_images", "environment",
    }  # fmt: skip
    assert set(other) == set(ours) | {"external"}
    assert {key: other[key] for key in set(ours) - about} == {
        key: ours[key] for key in set(ours) - about
    }
    for key in ("sampler_kind", "steps", "guidance", "nfe", "parameters", "train_images"):
        assert other[key] is None, key
    assert other["environment"]["train"] == "not known: samples from elsewhere"
    assert "256 grey levels brought to the nearest of the data's 17" in other["warnings"]


def test_their_row_sentence_and_figures_say_what_they_are(judged: tuple[Workspace, str]) -> None:
    workspace, _ = judged
    row, other = row_of(workspace), record(workspace, NAME)
    assert row["external"] == other["external"]
    assert row["external"]["source"] == SAID["source"]
    assert row["inputs"]["params"]["resolved"]["external.others"]["nfe"] is None
    assert any(path.startswith("data/samples/digits/others") for path in row["inputs"]["files"])
    assert "elsewhere, not reproducible" in results(workspace, "list", "--model", "others")
    assert f"{other['held_out']['mean']:.4g}" in results(workspace, "history", NAME)
    verdict = (workspace.root / "results/verdict.md").read_text()
    said = [line for line in verdict.splitlines() if line.startswith("- digits")]
    assert said[0].startswith("- digits, heun, FD")
    assert ": vp is at " in said[0]
    assert "between vp (" in said[1]
    assert "others (" in said[1]
    assert "sets of samples of each" in said[1]
    assert "seed" not in said[1]
    lines = map(str.split, results(workspace, "table").splitlines())
    (line,) = [words for words in lines if words[:2] == ["digits", "others"]]
    assert line[3:5] == ["external", "—"]
    rows = pd.read_csv(workspace.root / "results/table.csv", dtype=str).set_index("sampler")
    assert rows.loc["heun", "nfe"] == str(record(workspace, "digits-vp-0-heun")["nfe"])
    assert rows.loc["external", ["nfe", "parameters", "pareto"]].isna().all()
    page = (workspace.root / "reports/index.html").read_text()
    assert "not reproducible from here" in page
    assert "Samples from elsewhere: others " in page


@pytest.mark.slow
def test_a_clone_runs_nothing_and_judges_them_again_to_the_same(
    judged: tuple[Workspace, str], tmp_path: Path
) -> None:
    clone = cloned(shared.copy(judged[0], tmp_path), tmp_path)
    assert stages_run(clone.dvc("repro", "--pull")) == []
    assert clone.git("status", "--porcelain") == ""
    compared = results(clone, "compare", "HEAD", "--format", "csv")
    assert next(line for line in compared.splitlines() if "others" in line).endswith("0.0,the same")
    again = results(clone, "reproduce", row_of(clone)["key"])
    assert "its samples are from elsewhere and cannot be drawn again from here" in again
    value = record(clone, NAME)["held_out"]["mean"]
    assert f"the same: {value:g}, seed by seed, and all other metrics" in again


def test_what_does_not_fit_is_refused_in_one_line(copied: Workspace) -> None:
    given(copied)
    params = copied.params()
    params["evaluation"]["count"] = 400
    copied.write_params(params)
    copied.python("-m", "tasks.check", "--stage")
    stage = ("-m", "tasks.external", "digits", "others", "0", "external")
    assert copied.python(*stage, status=2).splitlines() == [
        "error: params.yaml: evaluation.count: 400 is not allowed for external.others, allowed: at most "
        "100, the samples in data/samples/digits/others: 0"
    ]
    x = np.zeros((400, 8, 9, 1), np.uint8)
    np.savez(copied.root / "data/samples/digits/others/0.npz", arr_0=x)
    (line,) = copied.python(*stage, status=2).splitlines()
    assert line.startswith("error: data/samples/digits/others: 0: samples of 8×9 pixels for data")


def test_classes_are_the_data_s_by_name_or_by_number() -> None:
    labels = np.array([1, 0, 1])
    images = ImageSet(np.zeros((3, 1, 2, 2), np.uint8), labels, ("cat", "dog"))
    found = class_numbers(images, ["dog", "horse", "cat"])
    assert found is not None
    assert found.tolist() == [0, 2, 0]
    assert class_numbers(images, ["dog", "horse"]) is None
    assert class_numbers(images, []) is None
    numbered = ImageSet(images.x, labels, ("0", "1"))
    found = class_numbers(numbered, ["dog", "horse", "cat"])
    assert found is not None
    assert found.tolist() == [1, 0, 1]
    assert class_numbers(ImageSet(images.x, labels, ("0", "1")), ["dog"]) is None


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_sets_are_disjoint_and_not_of_one_class(sorted_by_class: bool) -> None:
    labels = np.arange(100) % 10
    images = ImageSet(
        np.zeros((100, 1, 1, 1), np.uint8), np.sort(labels) if sorted_by_class else labels
    )
    assert images.labels is not None
    found = list(disjoint(images, 30, 12))
    assert len(found) == 3
    assert len(set(np.concatenate(found))) == 90
    assert all(len(set(images.labels[rows])) > 7 for rows in found)
    assert len(list(disjoint(images, 30, 2))) == 2
