"""Samples from anywhere: the same whatever their file, by the pipeline's own numbers, or one line."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from scoremodel.data.exchange import write_images
from scoremodel.evaluation.distance import frechet_distance
from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.evaluation.extractors.shipped import shipped_file
from tasks.export.__main__ import main as export
from tasks.judge.__main__ import main
from tasks.judge.bench import named
from tasks.params.errors import ParamsError
from tests.workspace import ROOT

X = load_digits().images[:, None].astype(np.uint8)
LABELS = load_digits().target.astype(np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project's folder with digits, and samples in several files."""
    root = tmp_path_factory.mktemp("project")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["threads"] = 1
    params["evaluation"] |= {"floor_repeats": 3, "panel": 1}
    yaml.dump(params, root / "params.yaml")
    for name in ("digits", "mixture"):
        (root / "data/raw" / name).mkdir(parents=True)
        shutil.copy(ROOT / "data/raw" / name / "source.yaml", root / "data/raw" / name)
    for form, name in {"folder": "set", "npz": "set.npz", "zip": "set.zip"}.items():
        write_images(root / name, X[:500], LABELS[:500], form=form, levels=17)  # type: ignore[arg-type]
    return root


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def judged(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return what the command prints as JSON, and nothing else."""
    capsys.readouterr()
    main([*arguments, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def noisy(count: int, spread: float, first: int = 900) -> NDArray[np.uint8]:
    """Return digits with noise: the more of it, the worse."""
    draw = np.random.default_rng(first)
    x = X[first : first + count] + draw.normal(0, spread, (count, 1, 8, 8))
    return x.round().clip(0, 16).astype(np.uint8)


def features(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the shipped judge makes of images."""
    extractor = load_extractor(shipped_file("digits", 0))
    found: NDArray[np.float32] = extractor.features(torch.from_numpy(np.array(x))).numpy()
    return found


def test_the_same_images_as_folder_npz_and_zip_are_judged_equal_to_the_bit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(Path.cwd().rglob("*"))
    found = [judged(capsys, path, "--dataset", "digits") for path in ("set", "set.npz", "set.zip")]
    assert sorted(Path.cwd().rglob("*")) == before  # it leaves nothing behind
    sides = [one["samples"]["set"] for one in found]
    for side in sides:
        assert side.pop("path").startswith("set")
        for record in (side["whole"], side["subsets"]):
            del record["external"]["said"]  # an npz has three channels, of which one is taken
            del record["warnings"]
    assert sides[0] == sides[1] == sides[2]
    # By itself: the distance to the split's other half, and which of the 500 are training images.
    whole = sides[0]["whole"]
    train, held_out = train_test_split(
        np.arange(len(X)), test_size=0.5, random_state=0, stratify=LABELS
    )
    known = frechet_distance(features(X[:500]), features(X[held_out]))
    assert whole["held_out"]["mean"] == pytest.approx(known, rel=1e-5)
    copies = np.isin(np.arange(500), train).mean()
    assert copies <= whole["copies"]["mean"] <= copies + 0.01
    assert whole["memorised"]
    assert "they copy training data" in " ".join(found[0]["said"])
    assert whole["agreement"]["mean"] > 0.9
    parts = sides[0]["subsets"]
    assert (parts["count"], len(parts["held_out"]["by_seed"])) == (100, 5)


def test_two_sets_have_a_verdict_that_turns_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    write_images("good.npz", noisy(400, 0.5), levels=17)
    write_images("bad.npz", noisy(300, 4.0), levels=17)
    found = [
        judged(capsys, *pair, "--dataset", "digits")
        for pair in (("good.npz", "bad.npz"), ("bad.npz", "good.npz"))
    ]
    there, back = (one["verdicts"][0] for one in found)
    whole = found[0]["samples"]["good"]["whole"]
    assert (there["answer"], back["answer"]) == ("better", "worse")
    assert there["difference"] == pytest.approx(-back["difference"])
    main(["good.npz", "bad.npz", "--dataset", "digits"])
    said = capsys.readouterr().out
    assert said.startswith("digits, FD (classifier 7fb2de5d): good (")
    assert "good (" in said
    assert "is better than bad" in said
    assert "sampling seed" not in said
    assert "checkpoint" not in said
    # Of the floor of all samples, not of the subsets'.
    assert there["margin"] == pytest.approx(0.1 * whole["floor"]["at_count"], rel=1e-6)
    assert "good: 100 of its 400 samples are left aside" in said


def test_several_files_are_several_sets(capsys: pytest.CaptureFixture[str]) -> None:
    Path("several").mkdir()
    for number in range(3):
        write_images(f"several/{number}.npz", noisy(100, 1.0, 900 + 100 * number), levels=17)
    side = judged(capsys, "several", "--dataset", "digits")["samples"]["several"]
    assert side["whole"] == side["subsets"]
    assert len(side["whole"]["held_out"]["by_seed"]) == 3


def test_own_images_without_a_block_in_params(capsys: pytest.CaptureFixture[str]) -> None:
    """300 images of one's own: half are held out, a judge is trained, the page holds it all."""
    draw = np.random.default_rng(0)
    x = np.linspace(0, 255, 12) * draw.uniform(0.3, 1, (420, 3, 12, 1))
    x = (x + draw.normal(0, 9, x.shape)).clip(0, 255).astype(np.uint8)
    write_images("data/raw/mine", x[:300], form="folder")
    write_images("mine.npz", x[300:])
    found = judged(capsys, "mine.npz", "--dataset", "mine", "--page", "page.html")
    (kept,) = Path(".scoremodel/state").iterdir()
    times = [one.stat().st_mtime_ns for one in sorted(kept.iterdir())]
    assert len(times) == 2  # the judge and one of the panel
    main(["mine.npz", "--dataset", "mine", "--json"])
    again = capsys.readouterr()
    assert "extractor: as trained before" in again.err
    assert json.loads(again.out)["samples"] == found["samples"]
    (kept / "judge.safetensors").write_bytes(b"broken")
    assert judged(capsys, "mine.npz", "--dataset", "mine")["samples"] == found["samples"]
    assert (kept / "judge.safetensors").stat().st_size > 1000
    write_images("data/raw/mine", x[:299], form="folder")  # other data, another judge
    judged(capsys, "mine.npz", "--dataset", "mine")
    assert len([*Path(".scoremodel/state").iterdir()]) == 2
    assert any("50% of it is held out" in line for line in found["said"])
    assert " of N = 120: 37 of them at " in found["said"][0]
    whole = found["samples"]["mine"]["whole"]
    assert whole["ratio_to_floor"] < 3
    page = Path("page.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "times the floor of" in page
    assert "http" not in page


def test_points_are_judged_too(capsys: pytest.CaptureFixture[str]) -> None:
    from scoremodel.data.sources.base import load_source

    description = YAML(typ="safe").load(Path("data/raw/mixture/source.yaml"))
    np.save("points.npy", load_source(description | {"seed": 5}).x[:300])
    whole = judged(capsys, "points.npy", "--dataset", "mixture")["samples"]["points"]["whole"]
    assert whole["ratio_to_floor"] < 4


@pytest.mark.parametrize("path", ["deep/points.npy", "."])
def test_data_in_a_file_beside_its_description_are_found(
    path: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    data = Path("data/raw/own")
    (data / "deep").mkdir(parents=True)
    draw = np.random.default_rng(0)
    if path == ".":
        png = [io.BytesIO() for _ in range(60)]
        for one in png:
            Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(one, "PNG")
        table = pa.table({"image": [{"bytes": one.getvalue(), "path": None} for one in png]})
        pq.write_table(table, data / "all.parquet")
        write_images("samples.npz", draw.integers(0, 255, (20, 1, 8, 8), np.uint8))
    else:
        np.save(data / path, draw.normal(size=(200, 3)))
        np.savez("samples.npz", arr_0=draw.normal(size=(100, 3)))
    kind = "huggingface" if path == "." else "vectors"
    (data / "source.yaml").write_text(f"kind: {kind}\npath: {path}")
    whole = judged(capsys, "samples.npz", "--dataset", "own")["samples"]["samples"]["whole"]
    assert whole["ratio_to_floor"] < 3


def test_a_reference_travels(capsys: pytest.CaptureFixture[str]) -> None:
    """What is exported gives the distance that the whole reference gives, and says what it is."""
    export(["reference", "digits", "stats.npz"])
    with np.load("stats.npz") as file:
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        assert file["sigma"].shape == (64, 64)
    card = json.loads(Path("stats.json").read_text())
    assert (card["count"], card["split"], card["levels"]) == (899, "held_out", 17)
    found = judged(capsys, "set.npz", "--dataset", "digits", "--statistics", "stats.npz")
    value = found["samples"]["set"]["whole"]["held_out"]["mean"]
    (line,) = (line for line in found["said"] if "stats.npz" in line)
    assert f"{value:.4g}, of N = 899 of digits" in line
    Path("stats.json").rename("card.json")
    found = judged(capsys, "set.npz", "--dataset", "digits", "--statistics", "stats.npz")
    assert any("whose extractor, resize and N no file says" in line for line in found["said"])
    Path("card.json").rename("stats.json")


def test_statistics_alone_give_the_distance_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the data: the same distance, by the card's extractor, and what nobody can know is said."""
    export(["reference", "digits", "alone.npz"])
    before = sorted(Path.cwd().rglob("*"))
    found = judged(capsys, "set", "--statistics", "alone.npz")
    assert sorted(Path.cwd().rglob("*")) == before
    held_out = train_test_split(np.arange(len(X)), test_size=0.5, random_state=0, stratify=LABELS)[
        1
    ]
    known = frechet_distance(features(X[:500]), features(X[held_out]))
    side = found["samples"]["set"]
    assert side["whole"]["mean"] == pytest.approx(known, rel=1e-5)
    assert (side["count"], len(side["subsets"]["by_seed"])) == (100, 5)
    assert side["subsets"]["mean"] > 2 * known  # fewer samples are farther
    assert side["metric"] == "FD (classifier 7fb2de5d)"
    assert any("whether the samples copy" in line for line in found["said"])
    assert any("alone.npz 1.0" in line and "of N = 899" in line for line in found["said"])
    write_images("near.npz", noisy(400, 0.5), levels=17)
    write_images("far.npz", noisy(300, 4.0), levels=17)
    there = judged(capsys, "near.npz", "far.npz", "--statistics", "alone.npz")
    back = judged(capsys, "far.npz", "near.npz", "--statistics", "alone.npz")
    assert [one["verdicts"][0]["answer"] for one in (there, back)] == ["better", "worse"]
    assert "near is nearer than far" in there["said"][0]
    assert there["said"][-1].startswith("near: 100 of its 400 samples are left aside")
    Path("alone.json").unlink()
    named = judged(capsys, "set", "--statistics", "alone.npz", "--extractor", "shipped:digits")
    assert named["samples"]["set"]["whole"] == side["whole"]
    assert any("whose extractor, resize and N no file says" in line for line in named["said"])


def test_vectors_are_their_own_features_without_data_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = np.random.default_rng(0)
    np.save("vectors.npy", draw.normal(1.0, 2.0, (4000, 3)))
    np.savez("normal.npz", mu=np.zeros(3), sigma=np.eye(3))
    side = judged(capsys, "vectors.npy", "--statistics", "normal.npz")["samples"]["vectors"]
    # |μ|² + D (s − 1)² = 6; its spread, by the delta method, is √(4 D s² μ² + 2 D (s − 1)² s²) / √N.
    assert side["whole"]["mean"] == pytest.approx(6, abs=4 * (72 / 4000) ** 0.5)


def test_the_command_line_chooses_the_judge(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = torch.jit.script(torch.nn.Flatten())  # type: ignore[no-untyped-call]
    torch.jit.save(module, tmp_path / "flat.pt")  # type: ignore[no-untyped-call]
    found = judged(
        capsys, "set", "--dataset", "digits", "--extractor", f"torchscript:{tmp_path / 'flat.pt'}"
    )
    whole = found["samples"]["set"]["whole"]
    assert whole["metric"].startswith("FD (torchscript ")
    held_out = train_test_split(np.arange(len(X)), test_size=0.5, random_state=0, stratify=LABELS)[
        1
    ]
    flat = np.rint(X * (255 / 16)).repeat(3, axis=1).reshape(len(X), -1)
    known = frechet_distance(flat[:500], flat[held_out])
    assert whole["held_out"]["mean"] == pytest.approx(known, rel=1e-4)


def test_names_are_those_of_the_files() -> None:
    paths = [Path("a/My Samples (1).npz"), Path("b/my-samples 1.zip"), Path("/")]
    assert list(named(paths)) == ["my_samples_1", "my_samples_1_2", "samples"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("few.npz --dataset digits", "samples: 7 are not allowed, allowed: at least 8"),
        ("set.npz --dataset digit", "--dataset: 'digit' is not allowed, allowed: digits"),
        ("set.npz --dataset mixture", "set.npz: set: samples of shape .* for data of shape"),
        ("none.npz --dataset digits", "none.npz: no such file"),
        ("large.npz --dataset digits", "large.npz: large: samples of 9×9 pixels .* resize: box"),
        (
            "set.npz --dataset digits --statistics wide.npz",
            "wide.npz: mu of 3 features, allowed: 64",
        ),
        ("set.npz --dataset digits --statistics no.npz", "no.npz"),
        ("set.npz --dataset digits --statistics set.npz", "set.npz: holds no mu and sigma"),
        ("set.npz --dataset digits --statistics pickled.npz", "pickled.npz: holds no mu and sigma"),
        ("set.npz --dataset digits --subsets 1", "--subsets: 1 is not allowed, allowed: 2 to 1000"),
        ("set.npz", "--dataset: missing, allowed: a folder in data/raw; or --statistics FILE"),
        ("set.npz --statistics wide.npz", "--extractor: missing, nothing beside .*wide.npz says"),
        (
            "set.npz --statistics wide.npz --extractor shipped:digits",
            "wide.npz: mu of 3 features, allowed: 64",
        ),
        (
            "set.npz --statistics wide.npz --extractor classifier",
            "--extractor: 'classifier' is not allowed without --dataset, .* allowed: shipped:digits",
        ),
        (
            "large.npz --statistics wide.npz --extractor shipped:digits",
            "large.npz: samples of 9×9 pixels for data of 8×8",
        ),
        (
            "set.npz --statistics carded.npz",
            "carded.json: statistics of 'FD .other.', whose file is not here",
        ),
        (
            "set.npz --statistics carded.npz --extractor shipped:digits",
            "carded.json: statistics of 'FD .other.', allowed: of this run's extractor, FD .classifier 7fb",
        ),
        (
            "set.npz --statistics carded.npz --dataset digits",
            "carded.json: statistics of 'FD .other.', allowed: of this run's extractor, FD .classifier 7fb",
        ),
        (
            "set.npz --dataset digits --extractor shipped:letters",
            "--extractor: 'shipped:letters' is not allowed, allowed: auto, classifier, shipped:digits",
        ),
        (
            "set.npz --dataset digits --extractor torchscript:none.pt",
            "--extractor: 'none.pt' is no file",
        ),
        (
            "set.npz --statistics wide.npz --page page.html",
            "--page: is not allowed without --dataset",
        ),
        ("set.npz set.zip set --dataset digits", "samples: 3 are not allowed, allowed: one or two"),
    ],
)
def test_what_cannot_be_judged_is_one_line(arguments: str, line: str) -> None:
    write_images("few.npz", X[:7], levels=17)
    write_images("large.npz", np.zeros((9, 1, 9, 9), np.uint8))
    np.savez("wide.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez("carded.npz", mu=np.zeros(64), sigma=np.eye(64))
    card = {"metric": "FD (other)", "extractor": "0" * 32, "count": 9, "dataset": "digits"}
    Path("carded.json").write_text(json.dumps({**card, "shape": [1, 8, 8], "levels": 17}))
    np.savez("pickled.npz", mu=np.array([{}]), sigma=np.eye(3))
    with pytest.raises((ValueError, OSError, ParamsError), match=line) as found:
        main(arguments.split())
    assert "\n" not in str(found.value)
