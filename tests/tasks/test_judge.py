"""Samples from anywhere: the same whatever their file, by the pipeline's own numbers, or one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
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
    assert any("50% of it is held out" in line for line in found["said"])
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
    Path("stats.json").unlink()
    found = judged(capsys, "set.npz", "--dataset", "digits", "--statistics", "stats.npz")
    assert any("whose extractor, resize and N no file says" in line for line in found["said"])


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
        ("set.npz set.zip set --dataset digits", "samples: 3 are not allowed, allowed: one or two"),
    ],
)
def test_what_cannot_be_judged_is_one_line(arguments: str, line: str) -> None:
    write_images("few.npz", X[:7], levels=17)
    write_images("large.npz", np.zeros((9, 1, 9, 9), np.uint8))
    np.savez("wide.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez("pickled.npz", mu=np.array([{}]), sigma=np.eye(3))
    with pytest.raises((ValueError, OSError, ParamsError), match=line) as found:
        main(arguments.split())
    assert "\n" not in str(found.value)
