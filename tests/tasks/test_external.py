"""Samples from elsewhere go through the same stages as our own, to the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoremodel.data.exchange import ImageSet, write_images
from tasks.external import class_numbers, disjoint
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
    drawn = np.concatenate([own[f"seed_{seed}"] for seed in (0, 1, 2)])
    write_images(folder / "samples.npz", drawn, levels=17)
    workspace.dvc("add", "-q", str(folder.relative_to(workspace.root)))
    params = workspace.params()
    params["active"]["external"] = ["others"]
    params["external"] = {"others": SAID | said}
    workspace.write_params(params)


def test_our_own_samples_in_others_files_are_judged_to_the_bit_as_they_are_here(
    copied: Workspace, tmp_path: Path
) -> None:
    given(copied)
    ran = stages_run(copied.dvc("repro"))
    new = [
        f"{stage}@digits-others" for stage in ("external", "external_features", "external_evaluate")
    ]
    assert [name for name in ran if "@" in name] == new
    ours, other = record(copied, "digits-vp-0-heun"), record(copied, NAME)
    about = {
        "model", "sampler", "sampler_kind", "steps", "guidance", "ema_half_life", "nfe", "warnings",
        "parameters", "train_images", "environment",
    }  # fmt: skip
    assert set(other) == set(ours) | {"external"}
    assert {key: other[key] for key in set(ours) - about} == {
        key: ours[key] for key in set(ours) - about
    }
    for key in ("sampler_kind", "steps", "guidance", "nfe", "parameters", "train_images"):
        assert other[key] is None, key
    assert other["environment"]["train"] == "not known: samples from elsewhere"
    assert "256 grey levels brought to the nearest of the data's 17" in other["warnings"]

    # Ledger, table, verdict and page have it, and say what it is.
    (row,) = [
        row
        for path in (copied.root / "results/ledger").glob("*.json")
        if (row := json.loads(path.read_text()))["configuration"] == NAME
    ]
    assert row["external"] == other["external"]
    assert row["external"]["source"] == SAID["source"]
    assert row["inputs"]["params"]["resolved"]["external.others"]["nfe"] is None
    assert any(path.startswith("data/samples/digits/others") for path in row["inputs"]["files"])
    assert "elsewhere, not reproducible" in results(copied, "list", "--model", "others")
    assert f"{ours['held_out']['mean']:.4g}" in results(copied, "history", NAME)
    verdict = (copied.root / "results/verdict.md").read_text()
    said = [line for line in verdict.splitlines() if line.startswith("- digits")]
    assert said[0].startswith("- digits, heun, FD")
    assert ": vp is at " in said[0]
    assert "between vp (" in said[1]
    assert "others (" in said[1]
    assert "which are not the same" in said[1]
    line = next(line for line in results(copied, "table").splitlines() if " others " in line)
    assert line.split()[3:5] == ["external", "—"]
    page = (copied.root / "reports/index.html").read_text()
    assert "not reproducible from here" in page
    assert "Samples from elsewhere: others " in page

    # A clone restores it all; what is judged there again is the same.
    clone = cloned(copied, tmp_path)
    assert stages_run(clone.dvc("repro", "--pull")) == []
    assert clone.git("status", "--porcelain") == ""
    assert "the same" in results(clone, "compare", "HEAD").split(" external ")[1].splitlines()[0]
    again = results(clone, "reproduce", row["key"])
    assert "its samples are from elsewhere and cannot be drawn again from here" in again
    assert f"the same: {other['held_out']['mean']:g}, seed by seed, and all other metrics" in again


def test_what_does_not_fit_is_refused_in_one_line(copied: Workspace) -> None:
    given(copied)
    params = copied.params()
    params["evaluation"]["count"] = 400
    copied.write_params(params)
    copied.python("-m", "tasks.check", "--stage")
    stage = ("-m", "tasks.external", "digits", "others", "0", "external")
    assert copied.python(*stage, status=2).splitlines() == [
        "error: params.yaml: evaluation.count: 400 is not allowed for external.others, allowed: at most "
        "300, the samples in data/samples/digits/others: samples"
    ]
    x = np.zeros((400, 8, 9, 1), np.uint8)
    np.savez(copied.root / "data/samples/digits/others/samples.npz", arr_0=x)
    (line,) = copied.python(*stage, status=2).splitlines()
    assert line.startswith(
        "error: data/samples/digits/others: samples: samples of 8×9 pixels for data"
    )


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
    if not sorted_by_class:  # in the order of the file
        assert np.concatenate(found).tolist() == list(range(90))
