"""What several test modules need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Return the folder of real images for trials, beside the project or where SCOREMODEL_DATA says."""
    folder = Path(os.environ.get("SCOREMODEL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set SCOREMODEL_DATA to a folder that has them")
    return folder
