"""More sampling seeds draw the new ones only, where drawn samples are kept, and to the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from pathlib import Path

import pytest

from tests import shared
from tests.nursery import nursery
from tests.workspace import Workspace

COMMAND = ("sample", "mixture", "vp", "0", "heun")
SAMPLES = "artifacts/samples/mixture-vp-0-heun.npz"

# Says which parts are drawn, and gets a signal after so many of them.
TOLD = """
import os
from scoremodel.io import checkpoint
real, made = checkpoint.Chunks._write, []
def write(self, name, tensors, content):
    real(self, name, tensors, content)
    made.append(name)
    print("drawn", name, flush=True)
    if len(made) == AFTER:
        os.kill(os.getpid(), NUMBER)
checkpoint.Chunks._write = write
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    original = shared.once(tmp_path_factory, "mixture", shared.with_mixture)
    workspace = shared.copy(original, tmp_path_factory.mktemp("trained"))
    workspace.dvc("repro", "--single-item", shared.MIXTURE_TRAIN)
    return workspace


def test_more_sampling_seeds_draw_the_new_ones_only(trained: Workspace, tmp_path: Path) -> None:
    workspace = shared.copy(trained, tmp_path)
    made = workspace.root / SAMPLES

    def told(seeds: list[int], keep: bool) -> None:
        params = workspace.params()
        params["evaluation"] |= {"sampling_seeds": seeds, "batch_size": 64}  # two parts of 100
        params["checkpoints"]["keep_samples"] = keep
        workspace.write_params(params)
        workspace.dvc("repro", "--single-item", "check")

    def timed() -> bool:
        digest = hashlib.md5(made.read_bytes()).hexdigest()
        path = workspace.root / ".scoremodel/timings" / f"{digest}.json"
        return path.exists() and json.loads(path.read_text())["seconds_per_1000"] > 0

    def states() -> list[Path]:
        return sorted((workspace.root / ".scoremodel/state").glob("samples-*/*"))

    with nursery(workspace) as stages:

        def drawn(after: int = 0, number: int = 0, status: int = 0) -> list[str]:
            fault = f"AFTER, NUMBER = {after}, {number}\n{TOLD}"
            said = stages.run(*COMMAND, before=fault, where=workspace, status=status)
            return re.findall(r"drawn (seed-\d+)-", said)

        told([3, 0, 7, 1], keep=False)
        assert drawn() == [f"seed-{seed}" for seed in (3, 0, 7, 1) for _ in range(2)]
        whole, was_timed = made.read_bytes(), timed()
        assert was_timed
        assert states() == []

        (workspace.root / ".scoremodel/timings").rename(tmp_path / "timings")
        told([3, 0], keep=True)
        made.unlink()
        assert drawn() == ["seed-3"] * 2 + ["seed-0"] * 2
        assert timed()
        kept = {path: path.stat().st_mtime_ns for path in states()}
        assert {path.suffix for path in kept} == {"", ".safetensors"}

        # Killed among the new ones, it goes on behind them.
        told([3, 0, 7, 1], keep=True)
        made.unlink()
        killed = drawn(3, int(signal.SIGKILL), -int(signal.SIGKILL))
        assert killed == ["seed-7", "seed-7", "seed-1"]
        assert drawn() == ["seed-1"]
        assert made.read_bytes() == whole
        assert not timed()  # of a part of these seconds nobody knows
        same = {p: p.stat().st_mtime_ns for p in kept if p.suffix}
        assert same == {path: at for path, at in kept.items() if path.suffix}

        # Without it, what is kept is used a last time.
        told([1, 3], keep=False)
        made.unlink()
        assert drawn() == []
        assert states() == []
