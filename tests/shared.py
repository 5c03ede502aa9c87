"""What takes long to make and is made once for a whole test run, however many processes run it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from tests.workspace import Workspace

MIXTURE_TRAIN = "train@mixture-vp-0"
MIXTURE_WEIGHTS = "artifacts/models/mixture-vp-0.safetensors"


def once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Workspace]
) -> Workspace:
    """Return a workspace of this test run, made by the first of pytest's processes that asks.

    Args:
        factory: gives the run's folder.
        name: the workspace's.
        make: makes it in the folder that it is given, which does not exist.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder / "project")
            (folder / "made").touch()
    return Workspace(folder / "project")


def copy(original: Workspace, folder: Path, warm: bool = True) -> Workspace:
    """Return a copy of a workspace, in a folder of the test's own, that the test may change."""
    shutil.copytree(original.root, folder / "project", symlinks=True)
    shutil.copytree(original.root.parent / "spy", folder / "spy")
    workspace = Workspace(folder / "project", warm)
    workspace.spied.mkdir()
    return workspace


def with_mixture(root: Path) -> Workspace:
    """Return a workspace whose one model is a small MLP for points in the plane, ready to train.

    The training takes two seconds at most, fifteen checkpoints in it.
    """
    workspace = Workspace.create(root)
    params = workspace.params()
    params["active"]["datasets"] = ["mixture"]
    network = params["models"]["vp"].setdefault("network", {})
    network.setdefault("mlp", {}).update({"width": 16, "depth": 1})
    workspace.write_params(params)
    train_for(workspace, 300, every_steps=20)
    workspace.dvc("repro", "prepare@mixture")
    workspace.git("add", "-A")
    workspace.git("commit", "-qm", "a mixture")
    return workspace


def first_out(workspace: Workspace, stage: str) -> str:
    """Return the path of a stage's first output, for a stage of a test's own that comes after it."""
    stages = YAML(typ="safe", pure=True).load(workspace.root / "dvc.yaml")["stages"]
    (first, *_) = stages[stage]["outs"]
    return str(next(iter(first)) if isinstance(first, dict) else first)


def train_for(workspace: Workspace, steps: int, every_steps: int, **training: object) -> None:
    """Write into params.yaml how long to train, and how often to save; `check` has to run after it."""
    params = workspace.params()
    ours = params["models"]["vp"].setdefault("training", {})
    warmup = {"warmup_steps": min(100, steps)}
    ours.update({"steps": steps, "log_every": 50, **warmup, **training})
    params["checkpoints"] |= {"every_steps": every_steps, "every_seconds": 0}
    workspace.write_params(params)
