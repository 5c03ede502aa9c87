"""Whole configurations by name are valid, and DVC takes them as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from tasks.params import presets
from tasks.params.errors import ParamsError
from tasks.params.load import checked, read_yaml
from tests.workspace import ROOT

NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_valid_and_reaches_params_as_dvc_writes_it(name: str, tmp_path: Path) -> None:
    arguments = presets.arguments(name).removesuffix("\0").split("\0")
    assert set(arguments[::2]) == {"--set-param"}
    said = [one for one in arguments[1::2] if not one.startswith("~")]  # another kind's block goes
    assert len(said) == len(presets.overrides(name)) > 0
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, arguments[1::2])
    raw = read_yaml(path)
    assert checked(raw, Path("params.yaml")) == presets.laid_over(name)
    assert checked(raw, Path("params.yaml")) != checked(read_yaml(Path("params.yaml")), Path("x"))


def test_each_has_its_line_in_the_list() -> None:
    lines = presets.listing().splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for line in lines:
        name, said = line.split(maxsplit=1)
        assert said.endswith("."), name


def test_a_wrong_one_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    (tmp_path / "own.yaml").write_text("# Mine.\nevaluation: {count: -1}\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "secret.yaml").write_text("device: ${oc.env:SECRET}\n")
    with pytest.raises(ParamsError, match=r"own\.yaml: evaluation\.count: -1 is not allowed"):
        presets.arguments("own")
    with pytest.raises(ParamsError, match=r"list\.yaml: \[1\] is not allowed, allowed: a block"):
        presets.arguments("list")
    said = (
        r"secret\.yaml: device: '\$\{oc\.env:SECRET\}' is not allowed, allowed: text without \$\{"
    )
    with pytest.raises(ParamsError, match=said):
        presets.arguments("secret")
    params = tmp_path / "params.yml"
    params.write_text("device: ${oc.env:SECRET}\n")
    with pytest.raises(ParamsError, match=r"params\.yml: device: .* is not allowed"):
        presets.laid_over("own", params)
    with pytest.raises(
        ParamsError, match="preset: 'nope' is not allowed, allowed: list, own, secret"
    ):
        presets.arguments("nope")
    assert presets.listing() == "list    \nown     Mine.\nsecret  \n"


@pytest.mark.parametrize("text", ["a b", "it's", "back\\", "a\\'b", "[1]", "true", "3", ""])
def test_any_text_arrives_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("old: 1\n")
    value = {"kind": "x", "path": text, "list": [1.5, None, True, text]}
    apply_overrides(path, [presets.as_override("new.key", value)])
    assert read_yaml(path) == {"old": 1, "new": {"key": value}}
