"""The page on extending: its blocks are put into a copy of the project, which finds all of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.workspace import ROOT

PAGE = ROOT / "docs/extend.md"
BLOCK = re.compile(r'^``` (?:python|yaml) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COPIED = ("scoremodel", "tasks", "flows", "presets", "tests", "data/raw", "docs/api")
FILES = ("params.yaml", "dvc.yaml", "prefect.yaml", "pyproject.toml", "docs/params.schema.json")
UNDER = {
    "params.yaml, under models:": r"^models:.*\n",
    "params.yaml, under samplers:": r"^samplers:.*\n",
    "params.yaml, under datasets:": r"^datasets:.*\n",
    "dvc.yaml, under stages:": r"^stages:\n",
    "prefect.yaml, under deployments:": r"^deployments:\n",
    "prefect.yaml, under nightly's schedules:": r"^  - name: nightly\n(?:    .*\n)*?    schedules:\n",
    "tasks/results/table.py, in COLUMNS": r"^COLUMNS: .*\n",
}
"""What a block that is no whole file comes after."""


def extended(root: Path) -> list[str]:
    """Copy the project into a folder, put in what the page shows, and return the blocks' titles."""
    for name in COPIED:
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".[a-z]*")
        )
    for name in FILES:
        shutil.copy(ROOT / name, root / name)
    titles = []
    for title, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        path = root / title.split(",")[0]
        if title in UNDER:
            text = path.read_text(encoding="utf-8")
            (place,) = re.finditer(UNDER[title], text, re.MULTILINE)
            block = text[: place.end()] + block + text[place.end() :]
        else:
            assert not path.exists(), title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
        titles.append(title)
    return titles


def test_what_the_page_adds_is_found_and_does_what_it_says(tmp_path: Path) -> None:
    """Tests of the additions, and those of every kind, run inside the copy."""
    titles = extended(tmp_path)
    assert set(UNDER) < set(titles)
    kinds = "noisy_flow or ornstein or log_uniform or shallow"
    every = [tmp_path / f"tests/scoremodel/test_every_{what}.py" for what in ("sampler", "kind")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/extended.py"]
        + [str(path) for path in every if path.exists()]
        + ["-k", f"extended or {kinds}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "DVC_NO_ANALYTICS": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
