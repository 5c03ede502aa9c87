"""What several test modules need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests import shared
from tests.workspace import Workspace

ROOT = Path(__file__).parents[1]

# One thread: tests' tensors are tiny, and two threads wait for each other beside other work.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Return the folder of real images for trials, beside the project or where SCOREMODEL_DATA says."""
    folder = Path(os.environ.get("SCOREMODEL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set SCOREMODEL_DATA to a folder that has them")
    return folder


def _finished(root: Path) -> Workspace:
    workspace = Workspace.create(root)
    workspace.dvc("repro")
    return workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which `dvc repro` has run once; tests may read it, not change it."""
    return shared.once(tmp_path_factory, "finished", _finished)


@pytest.fixture
def copied(finished: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of the finished workspace that a test may change."""
    return shared.copy(finished, tmp_path)
