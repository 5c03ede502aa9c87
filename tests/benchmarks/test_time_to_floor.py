"""The record's judge is the pipeline's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.time_to_floor import Judge


def test_the_record_s_floor_is_that_of_the_pipeline_s_records() -> None:
    """The same split, extractor, number of samples and subsets."""
    judge = Judge("digits", Path())
    record = json.loads(Path("results/records/digits-ve-0-heun.json").read_text())
    assert judge.floor.value == pytest.approx(record["floor"]["value"], rel=1e-5)
    assert judge.count == record["count"]
