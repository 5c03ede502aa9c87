"""What several test modules of the stages need."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.params.load import read_yaml
from tests.workspace import ROOT


@pytest.fixture
def raw() -> Any:
    """Return params.yaml with one training seed and twelve of sampling, as data that a test may change."""
    found = read_yaml(ROOT / "params.yaml")
    found["active"]["train_seeds"] = [0]
    found["evaluation"]["sampling_seeds"] = list(range(12))
    return found
