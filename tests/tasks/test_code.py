"""Code is identified by what it does: what cannot change a result trains nothing again, the rest does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.files.code import syntax_hash
from tasks.params.load import checked, read_yaml
from tasks.params.resolve import resolve
from tests.workspace import ROOT, Workspace

SOURCE = '''
"""What it is for."""
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from pathlib import Path
__all__ = ["half"]
def half(x: float, rate: float = 2) -> float:
    """Return a half."""
    return  [x/rate,
             x][0] if x != 'it' else 0
class One:
    """One."""
    def act(self): "Act."
'''


def ruff(text: str, *options: str) -> str:
    """Return a text as ruff lays it out."""
    command = [sys.executable, "-m", "ruff", "format", *options, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "# a comment\n",
        lambda text: text.replace("What it is for", "What it was for").replace("Return a", "A"),
        lambda text: text.replace('    """One."""\n', ""),
        lambda text: text.replace('["half"]', '["One", "half"]'),
        lambda text: text.replace("import Path\n", "import Path, PurePath\n"),
        lambda text: text.replace("if TYPE_CHECKING:\n    from pathlib import Path\n", ""),
        ruff,
        lambda text: ruff(text, "--line-length", "20"),
    ],
    ids=["comment", "docstring", "no docstring", "all", "types", "no types", "ruff", "narrow"],
)
def test_what_does_the_same_has_the_same_hash(edit: Callable[[str], str]) -> None:
    assert edit(SOURCE) != SOURCE
    assert syntax_hash(edit(SOURCE)) == syntax_hash(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate: float = 2", "rate: float = 3"),
        ("rate: float = 2", "rate: float = 2.0"),
        ("x/rate", "x//rate"),
        ("'it'", "'It'"),
        ("import Path\n", "import Path\nelse:\n    Path = None\n"),
        ("[x/rate,\n             x]", "[x,\n             x/rate]"),
        ("def act(self): ", "def act(self): return "),
    ],
)
def test_what_does_another_thing_has_another_hash(old: str, new: str) -> None:
    assert old in SOURCE
    assert syntax_hash(SOURCE.replace(old, new)) != syntax_hash(SOURCE)


CLOSURES = """
import json, sys
from tasks.files.code import closure
runs = json.load(sys.stdin)
json.dump({name: closure(*run).modules for name, run in runs.items()}, sys.stdout)
"""


def closures(tree: Path, runs: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the modules of every run as a copy of the project has them."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSURES],
        cwd=tree,
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[str, dict[str, list[str]]]]:
    """Return of every run of every stage what it is told to be: its module, and its kinds."""
    raw = read_yaml(ROOT / "params.yaml")
    raw["active"] |= {
        "applications": ["inverse"], "studies": ["failures"], "train_seeds": [0]
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = resolve(checked(raw, Path("params.yaml")))
    return {
        name.removeprefix("code/"): (content["entry"], content["kinds"])
        for name, content in found.items()
        if name.startswith("code/")
    }


@pytest.fixture(scope="module")
def before(runs: dict[str, Any]) -> dict[str, dict[str, str]]:
    return closures(ROOT, runs)


TRAIN = {"train@digits-ve-0", "train@digits-vp-0"}
HEUN = {f"sample@digits-{model}-0-heun" for model in ("ve", "vp")}
EULER = {name.replace("heun", "euler_maruyama") for name in HEUN}
INVERSE = {"applications@digits-ve-0-inverse", "applications@digits-vp-0-inverse"}
MINE = (
    "from dataclasses import dataclass\n"
    "from scoremodel.{0}.base import {1}\n"
    '@{1}.register("mine")\n'
    "@dataclass(frozen=True)\n"
    "class Mine({2}): ...\n"
)


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        ("scoremodel/samplers/mine.py", None,
         MINE.format("samplers", "SAMPLERS", "GridSampler"), set()),
        ("scoremodel/processes/mine.py", None, MINE.format("processes", "PROCESSES", "SDE"), set()),
        ("scoremodel/samplers/heun.py", "half = (r_s - r_t) / 2", "half = (r_s - r_t) / 3",
         HEUN | INVERSE | {"failures"}),
        ("scoremodel/samplers/reverse_sde.py", "import math", "import math, sys", EULER),
        ("scoremodel/samplers/multistep.py", "import math", "import math, sys", set()),
        ("scoremodel/training/loop.py", "BANDS = 4", "BANDS = 5", TRAIN | {"failures"}),
        ("scoremodel/processes/ve.py", "import math", "import math, sys",
         {name for name in TRAIN | HEUN | EULER | INVERSE if "-ve-" in name} | {"failures"}),
        ("scoremodel/evaluation/extractors/shipped/__init__.py", "NUMBERS = 3", "NUMBERS = 4",
         {"extractor@digits"}),
        ("scoremodel/evaluation/extractors/torchscript.py", "import torch", "import torch, sys",
         {"extractor@digits"}),
        ("scoremodel/evaluation/metrics/mine.py", None, MINE.format("evaluation.metrics", "METRICS", ""),
         {"report", "baselines@digits", *(name.replace("sample", "evaluate") for name in HEUN | EULER)}),
        ("tasks/report/pictures/grid.py", "_SIDE = 10", "_SIDE = 11", {"pictures"}),
        ("tasks/report/report.html.j2", "<", " <", {"report"}),
        ("tasks/report/page.py", "import Path", "import Path, PurePath", {"report"}),
        ("tasks/files/watch.py", "_STEPS = 12", "_STEPS = 13", TRAIN),
        ("tasks/prepare.py", "import math", "import math, sys", {"prepare@digits"}),
        ("tasks/params/schema.py", "import re", "import re, sys", set()),
        ("tasks/params/resolve.py", "import ast", "import ast, sys", set()),
        ("tasks/check.py", "import argparse", "import argparse, math", set()),
        ("scoremodel/__init__.py", "import NETWORKS\n", "import NETWORKS, build_network\n", set()),
    ],
)  # fmt: skip
def test_an_edit_changes_the_code_of_what_it_is_part_of(
    tmp_path: Path,
    runs: dict[str, Any],
    before: dict[str, dict[str, str]],
    path: str,
    old: str | None,
    new: str,
    changed: set[str],
) -> None:
    for room in ("scoremodel", "tasks"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    if old is None:
        (tmp_path / path).write_text(new)
    else:
        text = (tmp_path / path).read_text()
        assert old in text
        (tmp_path / path).write_text(text.replace(old, new, 1))
    after = closures(tmp_path, runs)
    assert {name for name in runs if after[name] != before[name]} == changed


def test_a_relative_import_is_followed(tmp_path: Path, runs: dict[str, Any]) -> None:
    """Somebody's own sampler, in two files."""
    for room in ("scoremodel", "tasks"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    mine = MINE.format("samplers", "SAMPLERS", "GridSampler")
    (tmp_path / "scoremodel/samplers/mine.py").write_text(f"from .help import x\n{mine}")
    (tmp_path / "scoremodel/samplers/help.py").write_text("x = 1\n")
    entry, kinds = runs["sample@digits-ve-0-heun"]
    found = closures(tmp_path, {"mine": (entry, kinds | {"scoremodel.samplers": ["mine"]})})
    ours = {Path(path).name for path in found["mine"] if path.startswith("scoremodel/samplers/")}
    assert ours == {"__init__.py", "base.py", "grid.py", "help.py", "mine.py", "sampling.py"}


UNSEEN = {
    "train": {"scoremodel/oracles.py"},  # of the objective "explicit"
    "extractor": {  # chosen by kind, and imported where it is
        f"scoremodel/evaluation/extractors/{name}.py"
        for name in ("identity", "inception", "torchscript")
    },
    "pictures": {  # of what is not drawn here
        *(f"tasks/report/pictures/{name}.py" for name in ("columns", "field", "pairs", "panels")),
        "tasks/report/svg.py",
    },
}
"""What a stage's code counts beside what it imports here: imports in functions that do not run."""


def test_the_code_is_what_the_stages_import(finished: Workspace) -> None:
    imported = finished.imports()
    folder = finished.root / "artifacts/resolved/code"
    said = {
        path.stem: set(json.loads(path.read_text())["modules"]) for path in folder.glob("*.json")
    }
    assert set(imported) - {"check@--stage"} == set(said) - {"failures"}
    for run, files in imported.items():
        if run == "check@--stage":
            continue
        modules = {path for path in said[run] if path.endswith(".py")}
        assert files <= modules, run
        assert modules - files == UNSEEN.get(run.split("@")[0], set()), run


def edit(workspace: Workspace, path: str, old: str, new: str) -> None:
    file = workspace.root / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def say_otherwise(workspace: Workspace) -> None:
    """Edit comments, docstrings and layout, and nothing else."""
    edit(workspace, "scoremodel/training/loop.py", "BANDS =", "# another comment\nBANDS =")
    edit(workspace, "tasks/report/page.py", '"""', '"""Another docstring. ')
    path = workspace.root / "scoremodel/denoiser.py"
    path.write_text(ruff(path.read_text(), "--line-length", "60"))


def test_words_and_layout_run_nothing_and_other_code_is_refused(copied: Workspace) -> None:
    say_otherwise(copied)
    said = copied.dvc("repro")
    assert [line for line in said.splitlines() if line.startswith("Running")] == [
        "Running stage 'check':"
    ]
    edit(copied, "scoremodel/samplers/heun.py", "half = (r_s - r_t) / 2", "half = (r_s - r_t) / 3")
    said = copied.python("-m", "tasks.sample", "digits", "vp", "0", "heun", status=2)
    assert said == (
        "error: artifacts/resolved/code/sample@digits-vp-0-heun.json: is of other code than sample "
        "is now (scoremodel/samplers/heun.py); run dvc repro, whose stage check comes first\n"
    )


def test_an_interrupted_training_goes_on_after_an_edit_of_words(copied: Workspace) -> None:
    params = copied.params()
    params["models"]["vp"]["training"] |= {"steps": 100_000}
    params["checkpoints"] |= {"every_steps": 1, "every_seconds": 0}
    copied.write_params(params)
    state = copied.root / ".scoremodel/state"

    def train() -> str:
        """Train to the first checkpoint, and return what was said of it."""
        known = set(state.glob("*/step-*"))
        running = copied.start("python", "-m", "tasks.train", "digits", "vp", "0")
        end = time.monotonic() + 60
        while set(state.glob("*/step-*")) <= known and running.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        said, errors = running.communicate(timeout=60)
        assert running.returncode == 128 + signal.SIGTERM, errors
        return said

    copied.python("-m", "tasks.check", "--stage")
    assert "can be watched in" in train()
    (folder,) = state.glob("digits-vp-0-*/")
    say_otherwise(copied)
    copied.python("-m", "tasks.check", "--stage")
    assert f"goes on from {folder.relative_to(copied.root)}" in train()
