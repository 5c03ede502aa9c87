"""What a form may say: nothing that git takes for an option, no other folder, no unknown key."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from flows.compare import compare
from flows.form import command
from flows.pipeline import pipeline
from flows.run import finish
from flows.sweep import sweep
from flows.worker import stage
from tasks.params.asked import (
    Branch,
    Budget,
    Commit,
    Target,
    seconds,
)
from tasks.params.errors import ParamsError
from tasks.params.overrides import combinations, edited, overridden
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
        (Budget, "30"),
        (Budget, "30 m"),
        (Budget, "0m"),
        (Budget, "1w"),
        (Budget, "-5m"),
    ],
)
def test_what_is_refused(kind: Any, value: str) -> None:
    with pytest.raises(ValidationError, match="allowed: "):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Target, "train@digits-ve-0"),
        (Commit, COMMIT),
        (Branch, "feature/new-sampler_2"),
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


@pytest.mark.parametrize(
    ("arguments", "flow", "given"),
    [
        ("compare", compare, {}),
        (
            "compare a b --train-seeds 0 1 --until-decided --budget 2h --remote s3://b",
            compare,
            {"models": ["a", "b"], "train_seeds": ["0", "1"], "until_decided": True, "budget": "2h",
             "remote": "s3://b"},
        ),
        (
            'sweep --grid {"a.b":[1,2]} --runs [{"c":null}] --presets seeds chains --commit-to results',
            sweep,
            {"grid": {"a.b": [1, 2]}, "runs": [{"c": None}], "presets": ["seeds", "chains"],
             "commit_to": "results"},
        ),
    ],
)  # fmt: skip
def test_a_command_takes_what_the_form_shows(
    monkeypatch: pytest.MonkeyPatch, arguments: str, flow: Any, given: dict[str, Any]
) -> None:
    """Whatever is not given is the flow's own default, and numbers are read by the flow's own check."""
    taken: list[Any] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["flows/experiments.py", *arguments.split()])
    monkeypatch.setattr("flows.form.finish", lambda *both: taken.extend(both))
    command(compare, sweep)
    assert taken == [flow, given]
    flow.validate_parameters(given)


def test_a_budget_is_seconds() -> None:
    assert [seconds(text) for text in ("90s", "30m", "1.5h")] == [90, 1800, 5400]


def test_a_mistake_on_the_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        finish(compare, {"train_seeds": [0], "budget": "30 parsecs"})
    assert ended.value.code == 2
    allowed = "allowed: a number with s, m, h or d, such as 90s, 30m, 2h, 30d"
    assert capsys.readouterr().err == f"error: budget: '30 parsecs' is not allowed, {allowed}\n"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"models": ["ve"]}, "models: ['ve'] is not allowed, allowed: a list of at least 2 items"),
        ({"models": 5}, "models: 5 is not allowed, allowed: a list"),
        (
            {"models": ["ve", "v p"]},
            "models[1]: 'v p' is not allowed, allowed: the name of a block in",
        ),
        ({"level": 3.0}, "level: 3.0 is not allowed, allowed: a number less than 1"),
        ({"metric": "x" * 999}, f"metric: '{'x' * 78}… is not allowed, allowed: 'held_out', "),
        ({"train_seeds": [10**400]}, f"train_seeds[0]: 1{'0' * 78}… is not allowed, allowed: "),
        (
            {"patience": math.nan},
            "patience: nan is not allowed, allowed: a number at most 1,000,000,000",
        ),
        ({"push": "maybe"}, "push: 'maybe' is not allowed, allowed: true or false"),
    ],
)
def test_a_mistake_is_said_in_our_words(
    capsys: pytest.CaptureFixture[str], given: dict[str, Any], line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        finish(compare, given)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


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


def test_an_override_changes_its_value_and_no_comment() -> None:
    text = (ROOT / "params.yaml").read_text()
    values = {"models.ve.training.steps": 7, "active.samplers": ["heun"], "seed": 1e-5}
    found = edited(text, values)
    content = YAML(typ="safe", pure=True).load(found)
    assert content["models"]["ve"]["training"] == {"steps": 7}
    assert content["active"]["samplers"] == ["heun"]
    assert content["seed"] == 1e-5
    comments = [line.split("#")[1] for line in text.splitlines() if "#" in line]
    assert [line.split("#")[1] for line in found.splitlines() if "#" in line] == comments


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
    with pytest.raises((ValueError, ParamsError), match=message):
        overridden(ROOT / "params.yaml", values)


def test_overrides_are_checked_by_the_parameters_own_schema() -> None:
    before = (ROOT / "params.yaml").read_text()
    params = overridden(ROOT / "params.yaml", {"models.ve.training.steps": 700})
    assert params.models["ve"].training.steps == 700
    with pytest.raises(
        ParamsError, match=r"models\.ve\.training\.step: unknown key, allowed: steps,"
    ):
        overridden(ROOT / "params.yaml", {"models.ve.training.step": 5})
    with pytest.raises(ParamsError, match=r"params\.yaml: models\.ve\.training\.steps: -1"):
        overridden(ROOT / "params.yaml", {"models.ve.training.steps": -1})
    assert (ROOT / "params.yaml").read_text() == before
