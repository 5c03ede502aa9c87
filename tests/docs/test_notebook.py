"""The page on notebooks: its blocks run one after the other, and print what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.docs.test_tour import NUMBER
from tests.workspace import ROOT

PAGE = ROOT / "docs/notebook.md"
BLOCK = re.compile(r"^``` (python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_runs_from_top_to_bottom_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words, and numbers within 15 %: other machines round otherwise."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    printed = io.StringIO()
    said = 0
    with torch.random.fork_rng():
        for kind, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if kind == "python":
                with contextlib.redirect_stdout(printed):
                    exec(compile(block, str(PAGE), "exec"), names)
                continue
            output = printed.getvalue()
            printed = io.StringIO()
            assert NUMBER.sub("#", output) == NUMBER.sub("#", block)
            numbers = [[float(one) for one in NUMBER.findall(text)] for text in (output, block)]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.15, abs=0.02), output
            said += 1
    assert said == 6
    assert (tmp_path / "drawn.png").is_file()
