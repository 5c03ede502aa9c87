"""What a run shows on the server: tables that people read, small pictures, sums; never a failure."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pandas as pd
import pytest
from PIL import Image

from flows.artifacts import publish, publish_results, publish_summary
from flows.progress import progress
from tasks.files.layout import PICTURES, TABLE, VERDICT
from tasks.files.schedule import Done
from tasks.results.table import COLUMNS


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what is published, by its key."""
    found: dict[str, str] = {}

    def record(markdown: str, key: str, **_: str) -> None:
        found[key] = markdown

    monkeypatch.setattr("flows.artifacts.create_markdown_artifact", record)
    monkeypatch.setattr("flows.artifacts.get_run_logger", lambda: logging.getLogger("run"))
    return found


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_a_table_has_four_digits_and_what_its_rows_share_below_it(shown: dict[str, str]) -> None:
    rows = pd.DataFrame(
        {
            "experiment": ["sweep-1", "sweep-2"],
            "models.ve.rate": ["1e-3", "a|b"],
            "data set": ["digits", "digits"],
            "NFE": [35, 100],
            "to held-out": [1.23456, 1.34567],
            "± std": [0.0612, float("nan")],
            "× floor": [1.472345, float("nan")],
            "empty": [None, None],
        }
    )
    publish(rows, "sweep", "two experiments")
    assert cells(shown["sweep"]) == [
        ["models.ve.rate", "NFE", "to held-out", "× floor", "experiment"],
        ["1e-3", "35", "1.235 ± 0.061", "1.472", "sweep-1"],
        ["a\\|b", "100", "1.346", "—", "sweep-2"],
    ]
    assert shown["sweep"].endswith("\n\nThe same in all rows: data set digits")
    assert list(rows) == ["experiment", "models.ve.rate", "data set", "NFE", "to held-out",
                          "± std", "× floor", "empty"]  # fmt: skip
    publish(rows[:1], "one", "one experiment")
    assert "data set" in cells(shown["one"])[0]


def test_the_verdict_has_a_small_picture_of_each_method(
    tmp_path: Path, shown: dict[str, str]
) -> None:
    for path in (TABLE, PICTURES / "x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    axes = [("digits", "ve", seed, sampler) for seed in (0, 1) for sampler in ("heun", "ddim")]
    rows = pd.DataFrame(axes, columns=["dataset", "model", "train_seed", "sampler"])
    rows.reindex(columns=list(COLUMNS)).to_csv(tmp_path / TABLE, index=False)
    (tmp_path / VERDICT).write_text("# Verdict\n\nBetter.\n")
    for name in ("digits-ve-0-heun", "digits-ve-1-heun"):  # `ddim` has none
        Image.new("L", (2000, 500), 128).save(tmp_path / PICTURES / f"{name}.png")
    publish_results(tmp_path)
    assert shown["verdict"].startswith("# Verdict\n\nBetter.\n")
    (picture,) = re.findall(
        r"!\[samples of (.*)\]\(data:image/webp;base64,(.*)\)", shown["verdict"]
    )
    assert picture[0] == "digits-ve-0-heun"
    with Image.open(io.BytesIO(base64.b64decode(picture[1]))) as image:
        assert image.size == (512, 128)
    assert len(cells(shown["results"])) == 5


def test_a_summary_sums_up_queues_and_gpus(shown: dict[str, str]) -> None:
    done = [
        Done("train@a", "ran", seconds=5400, waited=1800, where="gpu: one", gpus=2),
        Done("sample@a", "ran", seconds=1800, waited=1800, gpus=1),
        Done("check", "up to date"),
    ]
    publish_summary(done, {"evaluate@a": "two\nlines"}, {"revision": "abc1234"})
    line, *_ = shown["stages"].splitlines()
    assert line == (
        "2 of 4 stages were run, 1 up to date, 1 failed or left out; "
        "1 hours in queues, 3.5 GPU hours"
    )
    assert cells(shown["stages"])[-1][:3] == ["evaluate@a", "two lines", "—"]


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), RuntimeError("no server")])
def test_a_server_that_is_away_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    shown: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("flows.artifacts.create_markdown_artifact", refuse)
    monkeypatch.setattr("flows.artifacts._RESTART", 0.0)
    publish_summary([Done("check", "ran")], {}, {})
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warned == [f"the server did not take the artifact 'stages': {error!r}"]
    assert not shown


@pytest.mark.parametrize("fails", [False, True])
def test_a_stage_s_progress_is_there_as_long_as_it_runs(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    there: set[Any] = set()

    def create(**_: object) -> Any:
        there.add(made := uuid4())
        return made

    client = SimpleNamespace(update_artifact=lambda *_: None, delete_artifact=there.remove)
    answer: Callable[..., Any] = lambda **_: nullcontext(client)  # noqa: E731
    monkeypatch.setattr("flows.progress.create_progress_artifact", create)
    monkeypatch.setattr("flows.progress.get_client", answer)
    with pytest.raises(OSError, match="broken") if fails else nullcontext(), progress("a", "abc"):
        assert len(there) == 1
        if fails:
            raise OSError("broken")
    assert not there
