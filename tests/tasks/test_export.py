"""What is exported says what was measured, stands alone, and is read by the formats' own tools."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

import scoremodel
from tasks.export import model as exported
from tasks.export.__main__ import main
from tasks.results.__main__ import main as results
from tasks.results.ledger import read_rows
from tests.workspace import Workspace

Export = Callable[..., Path]
NAME = "digits-vp-0"
_BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(["scoremodel", "tasks", "safetensors"]))  # None: there is no such module
sys.path.insert(0, ".")
"""


@pytest.fixture
def export(finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Return a function that exports something of the finished workspace, and where it lies then."""
    monkeypatch.chdir(finished.root)

    def run(what: str, name: str, out: str = "out", *options: str) -> Path:
        path = tmp_path / out
        main([what, name, str(path), *options])
        return path

    return run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def front_matter(card: str) -> Any:
    return YAML(typ="safe", pure=True).load(card.split("---\n")[1])


def record(workspace: Workspace, sampler: str) -> Any:
    return json.loads((workspace.root / f"results/records/{NAME}-{sampler}.json").read_text())


def test_a_model_s_card_says_what_was_measured_and_its_code_runs_alone(
    export: Export, finished: Workspace
) -> None:
    folder = export("model", NAME)
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = front_matter(card)
    assert front["license"] == "cc-by-4.0"
    assert front["pipeline_tag"] == "unconditional-image-generation"
    (index,) = front["model-index"]
    assert index["name"] == NAME
    found = {
        (one["name"].split(", ")[1], one["type"]): one["value"]
        for result in index["results"]
        for one in result["metrics"]
    }
    for sampler in ("heun", "euler_maruyama"):
        for metric in ("held_out", "kid", "recall"):
            assert found[sampler, metric] == record(finished, sampler)[metric]["mean"]
    for name, row in read_rows(finished.root / "results/ledger").items():
        assert (f"`{name}`" in card) == row["configuration"].startswith(f"{NAME}-")
    files = re.findall(r"- `(\S+)`: SHA-256 `(\w+)`", card)
    assert {name for name, _ in files} == {"LICENSE-CODE", "model.safetensors", "net.py"}
    assert all(sha256(folder / name) == said for name, said in files)

    # The code as it stands in the card, and the library's Euler steps from the same noise.
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    seeded = code.replace(
        "net = load()", "net = load()\ntorch.manual_seed(0)\ntorch.set_num_threads(1)"
    )
    ending = "\ntorch.save((x, sigmas), 'x.pt')\n"
    subprocess.run([sys.executable, "-I", "-c", _BLOCKED + seeded + ending], cwd=folder, check=True)
    x, sigmas = torch.load(folder / "x.pt", weights_only=True)
    denoiser = scoremodel.load(finished.root / f"artifacts/models/{NAME}.safetensors")
    ratios = denoiser.process.ratio(
        torch.tensor([denoiser.process.t_min, 1.0], dtype=torch.float64)
    )
    torch.testing.assert_close(sigmas[[-1, 0]], ratios.float(), rtol=1e-5, atol=0)
    torch.manual_seed(0)
    y = float(f"{float(ratios[1]):.6g}") * torch.randn(16, 1, 8, 8)
    for here, there in zip(sigmas, [*sigmas[1:], 0], strict=True):
        t = denoiser.process.t_of_ratio(here.double()).expand(16)
        alpha = denoiser.process.alpha(t).float()[:, None, None, None]
        denoised = denoiser(alpha * y, t.float())
        y = denoised + there / here * (y - denoised)
    torch.testing.assert_close(x, y, rtol=2e-3, atol=2e-3)  # through times in single precision


def test_a_card_has_the_verdicts_of_its_own_model_and_samplers(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "digits, heun, FD (x): ve (1 ± 0) and vp (2 ± 0) are equivalent"
    others = [
        "digits, other, FD (x): ve (1 ± 0) and vp (2 ± 0) are equivalent",
        "mnist, heun, FD (x): ve (1 ± 0) and vp (2 ± 0) are equivalent",
        "digits, heun, FD (x): ve (1 ± 0) and vp_classes (2 ± 0) are equivalent",
    ]
    verdict = tmp_path / "verdict.md"
    verdict.write_text("".join(f"- {line}\n" for line in [own, *others]), encoding="utf-8")
    monkeypatch.setattr(exported, "VERDICT", verdict)
    card = (export("model", NAME) / "README.md").read_text(encoding="utf-8")
    assert f"\n> {own}\n" in card
    assert not [line for line in others if line in card]


def test_weights_of_another_training_are_not_given_the_old_one_s_numbers(
    export: Export, copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.root)
    path = copied.root / f"artifacts/models/{NAME}.safetensors"
    denoiser = scoremodel.load(path)
    denoiser.network.leave[2].bias.add_(0.1)
    path.unlink()  # a link into DVC's cache
    scoremodel.save({denoiser.ema_half_life or 1.0: denoiser}, path, denoiser.info)
    card = (export("model", NAME) / "README.md").read_text(encoding="utf-8")
    assert "were not measured" in card
    assert "model-index" not in front_matter(card)


def test_croissant_s_own_reader_finds_the_classes_and_the_arrays(
    export: Export, finished: Workspace
) -> None:
    from mlcroissant import Dataset

    path = export("data", "digits", "digits.json")
    data = Dataset(str(path))
    assert data.metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    assert not data.metadata.issues.errors
    assert data.metadata.license == ["https://creativecommons.org/licenses/by/4.0/"]
    assert [one["classes/name"] for one in data.records("classes")] == list("0123456789")
    arrays = finished.root / "artifacts/data/digits/arrays"
    said = {one.name: one for one in data.metadata.distribution}
    assert sorted(said) == sorted(one.name for one in arrays.glob("*.npy"))
    shapes = {one.uuid: one.fields[0].array_shape_tuple for one in data.metadata.record_sets}
    for name, one in said.items():
        there = path.parent / one.content_url
        assert there.samefile(arrays / name)
        assert one.sha256 == sha256(there)
        assert shapes[Path(name).stem] == np.load(there).shape


def test_rocrate_s_own_reader_finds_every_file_and_step_of_a_row(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rocrate.rocrate import ROCrate

    monkeypatch.chdir(finished.root)
    (name,) = (
        name
        for name, row in read_rows(finished.root / "results/ledger").items()
        if row["configuration"] == f"{NAME}-heun"
    )
    folder = tmp_path / "crate"
    results(["export", name[:12], str(folder)])
    row = json.loads((folder / "row.json").read_text())
    crate = ROCrate(folder)
    files = {one.id: one for one in crate.data_entities}
    there = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert set(files) == there - {"ro-crate-metadata.json"}
    assert all(one["sha256"] == sha256(folder / path) for path, one in files.items())
    assert crate.root_dataset["identifier"] == row["key"]

    # Every module by its hash and its text; every file of the pipeline by DVC's hash.
    modules = {path: said for path, said in row["inputs"]["files"].items() if path.endswith(".py")}
    assert {path: files[f"code/{path}"]["identifier"] for path in modules} == modules
    for path in modules:
        assert (folder / "code" / path).read_bytes() == (finished.root / path).read_bytes()
    actions = crate.get_by_type("CreateAction")
    stages = [one["name"] for one in actions]
    assert set(stages) == row["inputs"]["params"].keys() - {"resolved"}
    made: set[str] = set()
    for one in actions:
        took, gave = (
            {each.id for each in (found if isinstance(found, list) else [found])}
            for found in (one["object"], one["result"])
        )
        assert {name for name in took if name.startswith("#artifacts")} <= made, one.id
        made |= gave
        assert one["instrument"].type == "SoftwareApplication"
        assert one["description"] == row["inputs"]["params"][one["name"]]["cmd"]
    weights = crate.get(f"#artifacts/models/{NAME}.safetensors")
    content = (finished.root / f"artifacts/models/{NAME}.safetensors").read_bytes()
    assert weights["identifier"] == f"md5:{hashlib.md5(content).hexdigest()}"
    assert "row.json" in made
    # References lead somewhere: what is not an entity is an address.
    known = {one.id for one in crate.get_entities()}
    for one in json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]:
        for value in one.values():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, dict):
                    assert reference["@id"] in known or reference["@id"].startswith("https://"), one


def test_exported_samples_are_the_samples_in_the_names_of_others(
    export: Export, finished: Workspace
) -> None:
    with np.load(finished.root / f"artifacts/samples/{NAME}-heun.npz") as drawn:
        wanted = drawn["seed_1"]
    folder, array, archive = (
        export("samples", f"{NAME}-heun", f"out-{form}", "--as", form, "--seed", "1")
        for form in ("folder", "npz", "zip")
    )
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    assert names == [f"000000/{n:06}.png" for n in range(len(wanted))]
    pixels = np.stack([np.asarray(Image.open(folder / name)) for name in names])
    with np.load(array) as found:
        assert found.files == ["arr_0"]
        assert np.array_equal(found["arr_0"], np.repeat(pixels[..., None], 3, axis=3))
    with zipfile.ZipFile(archive) as members:
        packed = [f"00000/img{n:08}.png" for n in range(len(wanted))]  # EDM's data
        assert members.namelist() == packed
        assert [members.read(name) for name in packed] == [
            (folder / name).read_bytes() for name in names
        ]
        assert {one.compress_type for one in members.infolist()} == {zipfile.ZIP_STORED}
    assert pixels.max() == round(255 * int(wanted.max()) / 16)
    assert np.array_equal(np.round(pixels * (16 / 255))[:, None], wanted)  # 17 levels


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model", "digits-ve-0"], "'digits-ve-0': no such model here, allowed: digits-vp-0, or"),
        (["model", f"{NAME}-heun"], "no such model here, allowed: digits-vp-0"),
        (["model", "../x"], "no such model here"),
        (["model", "x\n" * 99], r"'x\\nx.{70,80}…: no such model"),
        (["model", NAME, "--ema-half-life", "3"], "holds no average with half-life 3, allowed: "),
        (["data", "mnist"], "'mnist': no such data set here, allowed: digits, or"),
        (["samples", NAME], f"no such samples here, allowed: {NAME}-euler_maruyama, {NAME}-heun"),
        (["samples", f"{NAME}-heun", "--seed", "7"], "--seed: 7 is not allowed, allowed: 0, 1, 2"),
    ],
)
def test_a_wrong_name_is_one_line_and_writes_nothing(
    export: Export, tmp_path: Path, arguments: list[str], said: str
) -> None:
    what, name, *options = arguments
    with pytest.raises(ValueError, match=said) as error:
        export(what, name, "out", *options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*out*"))


def test_nothing_is_replaced_but_an_earlier_export_with_force(
    export: Export, tmp_path: Path
) -> None:
    folder, own = tmp_path / "out", tmp_path / "own"
    export("model", NAME)
    (folder / "mine").touch()
    with pytest.raises(ValueError, match="out: exists already, allowed: a new name, or --force"):
        export("model", NAME)
    assert (folder / "mine").exists()
    export("model", NAME, "out", "--force")
    assert not (folder / "mine").exists()
    own.mkdir()
    (own / "thesis.tex").touch()
    with pytest.raises(ValueError, match="own: is no earlier export, which holds net"):
        export("model", NAME, "own", "--force")
    with pytest.raises(ValueError, match="own: is no file"):
        export("data", "digits", "own", "--force")
    with pytest.raises(
        ValueError, match="own: is no earlier export, which holds ro-crate-metadata"
    ):
        results(["export", "0", str(own), "--force"])
    assert (own / "thesis.tex").exists()
