"""What a stage is told is what its result depends on, and no more: the rest cannot make it run again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.files.layout import AXES
from tasks.files.resolved import resolved, resolved_path
from tasks.params import resolve as resolving
from tasks.params import schema
from tasks.params.errors import ParamsError
from tasks.params.load import checked
from tasks.params.resolve import resolve, source_of, stages, write
from tests.workspace import ROOT, Workspace


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def found(raw: Any) -> dict[str, Any]:
    """Return what the parameters resolve into, but for the code, which does not depend on them."""
    return resolve(checked(raw, Path("params.yaml")))


def changed(raw: Any, *place: str, value: Any, of: dict[str, Any]) -> set[str]:
    """Return the names of the files that another value of a key changes, brings or takes away."""
    other = copy.deepcopy(raw)
    block = other
    for key in place[:-1]:
        block = block.setdefault(key, {})
    assert block.get(place[-1]) != value
    block[place[-1]] = value
    before, after = of, found(other)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


VE, VP = "models/digits-ve", "models/digits-vp"


def test_a_key_changes_the_files_of_what_uses_it(raw: Any) -> None:
    raw["active"]["samplers"] = ["heun", "euler_maruyama", "heun_9"]
    raw["models"]["vp"] |= {"network": {"unet": {"width": 24}}, "training": {"clip_norm": 2.0}}
    before = found(raw)
    model = ("defaults", "model")
    for place, value, files in [
        ((*model, "network", "mlp", "width"), 256, set()),  # digits are images
        ((*model, "network", "unet", "blocks"), 2, {VE, VP}),
        ((*model, "network", "unet", "width"), 8, {VE}),  # vp says otherwise
        ((*model, "training", "clip_norm"), 3.0, {VE}),
        ((*model, "training", "steps"), 900, {VE, VP}),
        (("models", "vp", "training", "steps"), 900, {VP}),
        (("models", "ncsn", "sde", "sigma_min"), 0.05, set()),
        (("models", "vp_classes", "training", "label_dropout"), 0.2, set()),
        (("defaults", "sampler", "guidance"), 1.5, None),
        (("samplers", "langevin", "steps"), 9, set()),
        (("samplers", "heun_guided", "guidance"), 3.0, set()),
        (("samplers", "heun", "steps"), 9, {"samplers/heun"}),  # heun_9 has nine already
        (("samplers", "heun", "grid"), "log_snr", {"samplers/heun", "samplers/heun_9"}),
        (("samplers", "heun", "ema_half_life"), 5000.0, {"samplers/heun", "samplers/heun_9"}),
        (("samplers", "heun", "precision"), "bfloat16", {"samplers/heun", "samplers/heun_9"}),
        (("datasets", "mixture", "held_out"), 0.4, set()),
        (("datasets", "digits", "held_out"), 0.4, {"datasets/digits"}),
        (("evaluation", "count"), 100, {"judge/draws", "judge/metrics", "judge/floor"}),
        (("evaluation", "batch_size"), 100, {"judge/draws"}),
        (("evaluation", "neighbours"), 4, {"judge/metrics", "judge/floor"}),
        (("evaluation", "floor_repeats"), 9, {"judge/floor"}),
        (("evaluation", "extractor", "epochs"), 9, set()),  # of what is shipped
        (("evaluation", "extractor", "kind"), "classifier", {"extractors/digits"}),
        (("evaluation", "panel"), 1, {"judge/panel"}),
        (("applications", "inverse", "steps"), 9, set()),
        (("studies", "failures", "steps"), 9, set()),
        (("seed",), 1, {"datasets/digits", "judge/metrics", "judge/floor"}),
        (("threads",), 2, {"machine"}),
        (("cores",), 4, {"keeping"}),
        (("processes",), 8, {"keeping"}),
        (("checkpoints", "every_steps"), 9, {"keeping"}),
        (("watch", "grid_every_seconds"), 9, {"keeping"}),
    ]:
        if files is None:  # no active model knows classes
            with pytest.raises(ParamsError, match=r"guidance: 1\.5 is not allowed"):
                changed(raw, *place, value=value, of=before)
        else:
            assert changed(raw, *place, value=value, of=before) == files, place


def test_vectors_take_the_other_network_and_are_their_own_features(raw: Any) -> None:
    raw["active"]["datasets"] = ["mixture"]
    before = found(raw)
    assert before["extractors/mixture"] == {"kind": "identity"}
    assert set(before["models/mixture-ve"]["network"]) == {"mlp"}
    unet = ("defaults", "model", "network", "unet", "width")
    assert changed(raw, *unet, value=8, of=before) == set()
    mlp = ("defaults", "model", "network", "mlp", "width")
    assert changed(raw, *mlp, value=8, of=before) == {"models/mixture-ve", "models/mixture-vp"}
    epochs = ("evaluation", "extractor", "epochs")
    assert changed(raw, *epochs, value=9, of=before) == set()


def test_the_judge_that_is_shipped_is_the_one_of_the_data_s_source(raw: Any) -> None:
    raw["active"]["datasets"] = ["digits", "mnist", "fashion_mnist", "cifar10"]
    files = found(raw)
    for name in ("digits", "mnist", "fashion_mnist"):
        assert files[f"extractors/{name}"] == {"kind": "shipped", "name": name}
    trained = {"kind": "classifier", "share": 0.5, "epochs": 20, "seed": 0}
    assert files["extractors/cifar10"] == trained
    kinds = files["code/extractor@mnist"]["kinds"]["scoremodel.evaluation.extractors"]
    assert kinds == ["classifier"]
    # What it resolves into says the same again: so a row of the ledger is measured again.
    raw["evaluation"]["extractor"] = {"kind": "shipped", "name": "mnist"}
    assert found(raw)["extractors/mnist"] == files["extractors/mnist"]
    raw["evaluation"]["extractor"] = trained
    assert found(raw)["extractors/digits"] == trained
    raw["evaluation"]["extractor"] = trained | {"share": 1.0}
    with pytest.raises(ParamsError, match=r"extractor.*share: 1\.0 is not allowed"):
        found(raw)
    raw["evaluation"]["extractor"] = {"kind": "shipped", "name": "cifar10"}
    with pytest.raises(ParamsError, match=r"name: 'cifar10' is not allowed"):
        found(raw)


def test_what_is_active_brings_its_files_and_changes_no_other(raw: Any) -> None:
    raw["active"] |= {"applications": ["inverse"], "studies": ["failures"]}
    before = found(raw)
    assert changed(raw, "applications", "inverse", "steps", value=9, of=before) == {
        "applications/inverse"
    }
    assert changed(raw, "studies", "failures", "steps", value=9, of=before) == {"studies/failures"}
    assert changed(raw, "active", "models", value=["ve"], of=before) == {
        "active",
        VP,
        *(name for name in before if name.startswith("code/") and "-vp-" in name),
    }
    seeds = changed(raw, "active", "train_seeds", value=[0, 1], of=before)
    assert {name for name in seeds if not name.startswith("code/")} == {"active"}
    assert all("-1" in name for name in seeds - {"active"})


def test_a_new_key_that_nobody_has_changed_yet_changes_no_file(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a new version of the library has a parameter more, with a default."""
    before = found(raw)
    with monkeypatch.context() as patch:
        from pydantic import create_model

        training = create_model("Training", __base__=schema.Training, patience=(int, 3))
        model = create_model("Model", __base__=schema.Model, training=(training, ...))
        params = create_model("Params", __base__=schema.Params, models=(dict[str, model], ...))  # type: ignore[valid-type]
        patch.setattr("tasks.params.load.Params", params)
        given = checked(raw, Path("params.yaml"))
        assert given.models["ve"].training.patience == 3  # type: ignore[attr-defined]
        assert resolving.resolve(given) == before
        raw["models"]["ve"]["training"] = {"patience": 4}
        after = found(raw)
    assert {name for name in before if before[name] != after[name]} == {VE}


def test_every_stage_has_the_code_of_its_runs_and_depends_on_it(raw: Any) -> None:
    raw["active"] |= {"applications": ["inverse"], "studies": ["failures"], "external": ["edm"]}
    raw["external"] = {"edm": {"nfe": 35}}
    made = set(found(raw))
    graph = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
    said = stages()
    names = {"dataset": "digits", "model": "ve", "train_seed": "0", "sampler": "heun",
             "application": "inverse", "study": "failures", "external": "edm"}  # fmt: skip
    depended = {"keeping"}  # on which no result depends
    for stage, definition in graph.items():
        axes = list(definition.get("matrix", {}))
        if stage == "check":
            continue
        if stage.startswith("external"):  # samples from elsewhere: of a name in the model's place
            assert axes == ["dataset", "external"]
            module = stage.removeprefix("external_")
            words = "${item.dataset} ${item.external} 0 external"
            assert definition["cmd"] == f"exec python -m tasks.{module} {words}"
            assert said[module] == AXES[:4]
        elif stage != "study":
            assert axes == [axis for axis in AXES if axis in said[stage]] == list(said[stage])
        for path in definition["deps"]:
            for axis in axes:
                path = path.replace(f"${{item.{axis}}}", names[axis])
            path = path.replace("${key}", "-".join(names[axis] for axis in axes))
            if path.startswith("artifacts/resolved/"):
                depended.add(path.removeprefix("artifacts/resolved/").removesuffix(".json"))
    one = {name for name in made if "vp" not in name and "euler_maruyama" not in name}
    assert depended == one
    assert "models/digits-edm" not in made
    assert set(said) == set(graph) - {
        "check", "study", "external_features", "external_evaluate"
    } | {"failures"}  # fmt: skip


def test_files_are_written_whole_and_those_of_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"models/digits-ve": {"a": 1}, "machine": {"threads": 2}})
    before = resolved_path("machine").stat()
    (resolved_path("machine").parent / ".7-machine.json").write_text("a killed one's")
    write({"models/digits-vp": {"a": 1}, "machine": {"threads": 2}})
    after = resolved_path("machine").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(path.name for path in Path("artifacts").rglob("*") if path.is_file()) == [
        "digits-vp.json",
        "machine.json",
    ]
    assert resolved("models/digits-vp") == {"a": 1}
    with pytest.raises(
        FileNotFoundError, match=r"digits-ve\.json: no such file; what is named must"
    ):
        resolved("models/digits-ve")
    resolved_path("machine").write_text('{"thr')
    with pytest.raises(ValueError, match=r"machine\.json: damaged .*run dvc repro --force check"):
        resolved("machine")
    write({"machine": {"threads": 2}})
    assert resolved("machine") == {"threads": 2}


def test_a_source_says_whether_it_gives_images_or_vectors(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no images"):
        source_of(tmp_path)
    image = tmp_path / "a.png"
    image.touch()  # that it can be read, prepare says
    assert source_of(tmp_path) == ({"kind": "folder"}, "images")
    image.unlink()
    for text, expected in (
        ("kind: digits", ({"kind": "digits"}, "images")),
        ("kind: two_moons\ncount: 9", ({"kind": "two_moons", "count": 9}, "vectors")),
    ):
        (tmp_path / "source.yaml").write_text(text)
        assert source_of(tmp_path) == expected
    for text, said in (
        ("kind: nope", "kind: 'nope' is unknown, allowed: archive, arrays, digits, "),
        ("[", "not valid"),
        ("- 1", "allowed: a block of keys"),
    ):
        (tmp_path / "source.yaml").write_text(text)
        with pytest.raises(ParamsError, match=said):
            source_of(tmp_path)


def test_what_the_data_do_not_take_runs_nothing_through_dvc(copied: Workspace) -> None:
    before = copied.lock()
    params = copied.params()
    params["defaults"]["model"]["network"]["mlp"]["width"] = 17
    params["defaults"]["model"]["training"]["steps"] = 1700  # vp says otherwise, ve is not active
    params["samplers"]["langevin"]["steps"] = 17
    copied.write_params(params)
    said = copied.dvc("repro")
    assert [line for line in said.splitlines() if line.startswith("Running")] == [
        "Running stage 'check':"
    ]
    assert "Stage 'train@digits-vp-0' didn't change, skipping" in said
    after = copied.lock()
    assert json.dumps(params) not in before
    assert before != after  # of check
