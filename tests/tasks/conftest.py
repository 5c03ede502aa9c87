"""What several test modules of the stages need."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.params.load import read_yaml
from tests.workspace import ROOT


@pytest.fixture
def raw() -> Any:
    """Return params.yaml as it is committed, as plain data that a test may change."""
    return read_yaml(ROOT / "params.yaml")
