"""The tour: every script runs, and prints what its page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspace import ROOT

TOUR = ROOT / "docs/tour"
SCRIPTS = sorted(path.stem for path in TOUR.glob("*.py") if path.stem != "drawing")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def shown_on() -> dict[str, tuple[str, str]]:
    """Return script → (page, the block of output that follows it)."""
    found = {}
    for page in TOUR.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for script in re.findall(r'^--8<-- "docs/tour/(\w+)\.py:api"$', text, re.MULTILINE):
            after = text[text.index(f"docs/tour/{script}.py:api") :]
            block = re.search(r"``` text\n(.*?)\n```", after, re.DOTALL)
            found[script] = (page.name, block[1] if block else "")
    return found


def test_every_script_is_on_a_page_with_what_it_prints_and_draws() -> None:
    pages = shown_on()
    assert sorted(pages) == SCRIPTS
    for script, (page, output) in pages.items():
        assert NUMBER.search(output), page
        assert f"({script}.svg)" in (TOUR / page).read_text(encoding="utf-8")
        assert (TOUR / f"{script}.svg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_what_its_page_says(script: str, tmp_path: Path) -> None:
    """The same words, and numbers within 5 % or a hundredth: other machines round otherwise."""
    for name in (f"{script}.py", "drawing.py"):
        (tmp_path / name).write_text((TOUR / name).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / f"{script}.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    said = shown_on()[script][1]
    printed = done.stdout.strip()
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", said)
    numbers = [[float(one) for one in NUMBER.findall(text)] for text in (printed, said)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.01)
    assert (tmp_path / f"{script}.svg").read_text(encoding="utf-8").startswith("<?xml")
