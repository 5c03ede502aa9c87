"""Numbers as records and tables have them."""

from __future__ import annotations

import json

import pytest

from tasks.results.spread import record_text, spread
from tasks.results.table import with_spread


@pytest.mark.parametrize(
    ("value", "std", "said"),
    [
        (0.973333, None, "0.9733"),
        (0.973333, 0.0, "0.9733 ± 0"),
        (0.973333, 1.4e-16, "0.9733 ± 0"),
        (-1234.5678, 1.1e-7, "-1235 ± 0"),
        (0.973333, 0.0123, "0.973 ± 0.012"),
        (0.00123456, 0.0000432, "0.001235 ± 0.000043"),
        (1234.5, 210.0, "1234 ± 210"),
    ],
)
def test_a_spread_of_rounding_is_none(value: float, std: float | None, said: str) -> None:
    assert with_spread(value, std) == said


def test_values_that_rounding_tells_apart_have_no_spread() -> None:
    third = 0.1 + 0.2
    assert spread([0.3, third, 0.3])["std"] == 0
    assert spread([0.3, 0.3 + 1e-8])["std"] == pytest.approx(7.07107e-9)
    assert spread([0.3]) == {"mean": 0.3, "std": None, "by_seed": [0.3]}


def test_a_record_has_a_line_for_each_list_of_numbers() -> None:
    record = {
        "values": [1.5, -2e-07, 3],
        "none": [],
        "texts": ["a [\n 1,\n 2 ]", "b"],
        "nested": {"ratios": [[1, 2], [3, None]], "blocks": [{"x": [1]}, 7]},
    }
    text = record_text(record)
    assert json.loads(text) == record
    assert '  "values": [1.5, -2e-07, 3],\n' in text
    assert "      [1, 2],\n      [3, null]\n" in text
    assert '        "x": [1]\n' in text
    assert len(text.splitlines()) == len(json.dumps(record, indent=2).splitlines()) - (
        4 + 3 + 3 + 2
    )
