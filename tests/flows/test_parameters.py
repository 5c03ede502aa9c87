"""What a form may say: nothing that git takes for an option, no other folder, no secret, no unknown key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from flows.compare import compare
from flows.parameters import (
    Branch,
    Budget,
    Commit,
    RemoteUrl,
    Repository,
    Target,
    as_overrides,
    combinations,
    overridden,
    seconds,
)
from flows.pipeline import pipeline
from flows.run import finish
from flows.sweep import sweep
from flows.worker import stage
from tasks.params.errors import ParamsError
from tests.workspace import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Target, "--force"),
        (Target, "train; rm -rf /"),
        (Target, "../other/dvc.yaml:train"),
        (Target, "$(id)"),
        (Target, ""),
        (Commit, "HEAD"),
        (Commit, "--upload-pack=touch /tmp/x"),
        (Commit, COMMIT + "\n"),
        (Branch, "--upload-pack=x"),
        (Branch, "main:refs/heads/other"),
        (Branch, "a..b"),
        (Branch, "-main"),
        (Branch, "main\n"),
        (Repository, "--upload-pack=touch /tmp/x"),
        (Repository, "ext::sh -c touch% /tmp/x"),
        (Repository, "https://user:secret@example.com/x.git"),
        (Repository, "https://secret@example.com/x.git"),
        (Repository, "HTTPS://user:secret@example.com/x.git"),
        (Repository, "/a folder"),
        (RemoteUrl, "../storage"),
        (RemoteUrl, "s3://key:secret@bucket"),
        (RemoteUrl, "-x"),
        (Budget, "30"),
        (Budget, "30 m"),
        (Budget, "0m"),
        (Budget, "1w"),
        (Budget, "-5m"),
    ],
)
def test_what_is_refused(kind: Any, value: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(value)
    assert "allowed: " in str(error.value)
    assert (
        "secret" not in str(error.value).split("[type")[0].split("Value error, ")[1].split("; ")[0]
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Target, "train@digits-ve-0"),
        (Commit, COMMIT),
        (Branch, "feature/new-sampler_2"),
        (Repository, "git@example.com:team/project.git"),
        (Repository, "https://example.com/team/project.git"),
        (Repository, "/srv/project"),
        (RemoteUrl, "s3://bucket/path"),
        (RemoteUrl, "/srv/storage"),
        (Budget, "1.5h"),
    ],
)
def test_what_is_taken(kind: Any, value: str) -> None:
    assert TypeAdapter(kind).validate_python(value) == value


@pytest.mark.parametrize("flow", [pipeline, compare, sweep, stage])
def test_every_parameter_of_a_form_is_typed_and_described(flow: Any) -> None:
    from prefect.utilities.callables import parameter_schema

    for name, entry in parameter_schema(flow).properties.items():
        assert entry.get("description"), (flow.name, name)
        assert {"type", "anyOf", "enum", "$ref"} & entry.keys(), (flow.name, name)


def test_a_budget_is_seconds() -> None:
    assert [seconds(text) for text in ("90s", "30m", "1.5h")] == [90, 1800, 5400]


def test_a_mistake_on_the_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        finish(compare, {"train_seeds": [0], "budget": "30 parsecs"})
    assert ended.value.code == 2
    allowed = "allowed: a number with s, m, h or d, such as 90s, 30m, 2h, 30d"
    assert capsys.readouterr().err == f"error: budget: '30 parsecs' is not allowed, {allowed}\n"


def test_a_grid_is_every_combination_and_a_list_is_itself() -> None:
    grid = {"a.b": [1, 2], "c": [0.5]}
    assert combinations(grid, [{"d": None}]) == [
        {"a.b": 1, "c": 0.5},
        {"a.b": 2, "c": 0.5},
        {"d": None},
    ]
    with pytest.raises(ValueError, match=r"a\.b: has no values"):
        combinations({"a.b": []}, [])
    with pytest.raises(ValueError, match="both are empty"):
        combinations({}, [])


def test_overrides_mean_to_dvc_what_they_mean_here(tmp_path: Path) -> None:
    """DVC's own reader gives each value back, small numbers and odd texts included."""
    from dvc.utils.hydra import apply_overrides
    from ruamel.yaml import YAML

    values: dict[str, Any] = {
        "whole": 3,
        "small": 1e-5,
        "flag": True,
        "none": None,
        "names": ["ve", "vp"],
        "block": {"kind": "ve", "sigma_min": 0.02},
        "text": "it's \\' a \\ [text], {with} $(signs); and=more",
    }
    path = tmp_path / "params.yaml"
    path.write_text("".join(f"{key}: 0\n" for key in values))
    apply_overrides(path, as_overrides(values))
    assert YAML(typ="safe", pure=True).load(path) == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modles.ve.training.steps": 5}, "has no key 'modles.ve.training.steps' to set"),
        ({"seed": "${oc.env:HOME}"}, "DVC would look up"),
        ({"checkpoints.folder": "/etc"}, "allowed: a path in the workspace"),
        ({"checkpoints.folder": "../x"}, "allowed: a path in the workspace"),
        (
            {"checkpoints": {"folder": "/etc", "every_steps": 0, "every_seconds": 0}},
            r"checkpoints\.folder: '/etc' is not allowed in a flow",
        ),
        (
            {"evaluation.extractor": {"kind": "torchscript", "path": "/x", "sha256": "0" * 64}},
            r"evaluation\.extractor\.path: '/x' is not allowed in a flow",
        ),
        ({"a b; c": 1}, "allowed: a key of params.yaml"),
    ],
)
def test_overrides_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overridden(values, ROOT / "params.yaml")


def test_overrides_are_checked_by_the_parameters_own_schema() -> None:
    before = (ROOT / "params.yaml").read_text()
    params = overridden({"models.ve.training.steps": 7}, ROOT / "params.yaml")
    assert params.models["ve"].training.steps == 7
    with pytest.raises(
        ParamsError, match=r"models\.ve\.training\.step: unknown key, allowed: steps,"
    ):
        overridden({"models.ve.training.step": 5}, ROOT / "params.yaml")
    with pytest.raises(ParamsError, match=r"params\.yaml: models\.ve\.training\.steps: -1"):
        overridden({"models.ve.training.steps": -1}, ROOT / "params.yaml")
    assert (ROOT / "params.yaml").read_text() == before
