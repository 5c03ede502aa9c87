"""DVC as a person sees it: what it does to params.yaml, and to git when it is killed."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from dvc.utils.hydra import apply_overrides

from tasks.params.json_schema import PATH, json_schema
from tasks.params.load import read_yaml
from tests.workspace import ROOT, Workspace


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        ("defaults.model.training.steps=500", ["-      steps: 600", "+      steps: 500"]),
        ("++models.ve.training.steps=500", ["+    training:", "+      steps: 500"]),
        ("active.samplers=[heun]", ["-  - euler_maruyama"]),
        ("active.applications=[field]", ["+  - field"]),
    ],
)
def test_set_param_changes_what_it_says_and_no_other_line(
    tmp_path: Path, override: str, lines: list[str]
) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = path.read_text().splitlines()
    apply_overrides(path, [override])
    changed = [
        line.split("  #")[0].rstrip()
        for line in difflib.unified_diff(before, path.read_text().splitlines(), n=0, lineterm="")
        if line[0] in "+-" and not line.startswith(("+++", "---"))
    ]
    if "applications" in override:  # an empty list stood on the key's own line
        changed = [line for line in changed if "applications" not in line]
    assert changed == lines


def test_the_schema_for_editors_is_current_and_takes_what_ships() -> None:
    written = json.loads((ROOT / PATH).read_text())
    assert written == json.loads(json.dumps(json_schema())), "python -m tasks.params.json_schema"
    validator = jsonschema.Draft202012Validator(written)
    for path in (ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))):
        assert not list(validator.iter_errors(read_yaml(path))), path
        first = path.read_text().splitlines()[0]
        assert first.endswith("docs/params.schema.json")
    for wrong in (
        {"models": {"ve": {"sde": {"kind": "ve", "sigma_mim": 0.02}}}},
        {"samplers": {"heun": {"kind": "heun", "steps": 0}}},
        {"defaults": {"model": {"training": {"learning_rate": -1.0}}}},
        {"evaluation": {"count": "many"}},
    ):
        assert list(validator.iter_errors(wrong)), wrong
    rate = written["$defs"]["Training"]["properties"]["learning_rate"]["description"]
    assert rate == "the largest, after warm-up."


def test_a_failed_experiment_says_how_params_yaml_comes_back(copied: Workspace) -> None:
    copied.git("add", "-A")
    copied.git("commit", "-qm", "results")
    said = copied.dvc("exp", "run", "-S", "evaluation.count=-5", status=255)
    assert (
        "error: params.yaml: evaluation.count: -5 is not allowed, allowed: an integer from" in said
    )
    assert "params.yaml keeps that: git restore params.yaml" in said
    copied.git("restore", "params.yaml")
    assert copied.params()["evaluation"]["count"] == 100
    said = copied.dvc("exp", "run", "-S", "models.vp.training.flip=true", status=255)
    assert "To append to your config use +models.vp.training.flip" in said
    copied.dvc("exp", "run", "--queue", "-S", "++models.vp.training.flip=true")


def test_a_detached_head_is_named_with_the_way_back(copied: Workspace) -> None:
    copied.git("branch", "-M", "main")
    copied.git("checkout", "-q", "--detach")
    said = copied.python("-m", "tasks.check")
    head = copied.git("rev-parse", "--short", "HEAD").strip()
    assert f"git: HEAD is detached at {head}" in said
    assert "git switch main" in said
    copied.git("switch", "-q", "main")
    assert "detached" not in copied.python("-m", "tasks.check")
