"""What several test modules need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.workspace import Workspace

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Return the folder of real images for trials, beside the project or where SCOREMODEL_DATA says."""
    folder = Path(os.environ.get("SCOREMODEL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set SCOREMODEL_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which `dvc repro` has run once; tests may read it, not change it."""
    workspace = Workspace.create(tmp_path_factory.mktemp("workspace") / "project")
    workspace.dvc("repro")
    return workspace


@pytest.fixture
def copied(finished: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of the finished workspace that a test may change."""
    shutil.copytree(finished.root, tmp_path / "project", symlinks=True)
    shutil.copytree(finished.root.parent / "spy", tmp_path / "spy")
    workspace = Workspace(tmp_path / "project")
    workspace.spied.mkdir()
    return workspace
