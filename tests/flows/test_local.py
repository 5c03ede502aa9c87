"""GPUs of one machine: as many stages as there are, each on one of its own; and lines that are cleaned."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flows import child
from flows.clones import clone, git, head
from flows.graph import StageNode
from flows.local import gpus, one_gpu
from flows.pipeline import schedule
from tests.flows.test_pipeline import Recorder


def workspace(folder: Path, device: str = "auto") -> Path:
    (folder / "params.yaml").write_text(f"device: {device}\n")
    return folder


def test_a_machine_s_gpus_are_those_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert gpus(workspace(tmp_path)) == ("2", "3")
    assert gpus(workspace(tmp_path, "cpu")) == ()
    assert gpus(workspace(tmp_path, "cuda:1")) == ("",)  # one stage at a time, on the one it names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(workspace(tmp_path)) == ()


def test_a_gpu_is_known_by_its_name_where_that_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number is another GPU in another container, and a lock may be on a volume of both."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-aaa'\necho '1, GPU-bbb'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(workspace(tmp_path)) == ("GPU-aaa", "GPU-bbb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus(workspace(tmp_path)) == ("GPU-bbb",)


def test_each_stage_has_a_gpu_to_itself_and_a_third_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    root, never, said = workspace(tmp_path), threading.Event(), list[str]()
    third: list[dict[str, str]] = []

    def take() -> None:
        with one_gpu(root, said.append, never) as environment:
            third.append(environment)

    with one_gpu(root, said.append, never) as first:
        with one_gpu(root, said.append, never) as second:
            assert {one["CUDA_VISIBLE_DEVICES"] for one in (first, second)} == {"0", "1"}
            waiting = threading.Thread(target=take)
            waiting.start()
            waiting.join(timeout=2)
            assert third == []
            assert said == ["waits for a GPU: another stage is on 0, 1"]
        waiting.join(timeout=10)
    assert third == [second]


def test_stages_that_claim_a_gpu_run_side_by_side_as_far_as_there_are_any() -> None:
    nodes = [StageNode(f"b{n}", (), cores=0, gpus=1) for n in range(6)]
    for count, most in ((2, 2), (0, 6)):  # where there is none, the claim is void
        recorder = Recorder()
        done, failed = schedule(nodes, 4, recorder.submit, recorder.first_done, gpus=count)
        assert len(done) == 6
        assert not failed
        assert recorder.most_stages == most


def test_a_password_in_a_line_of_dvc_s_is_cut_out() -> None:
    line = "ERROR: unexpected error - https://user:secret@example.com/x is not reachable"
    assert (
        child.cleaned(line) == "ERROR: unexpected error - https://…@example.com/x is not reachable"
    )


@pytest.mark.parametrize(
    ("lines", "status", "kind", "message"),
    [
        (["exited with -9"], 255, child.StageKilledError, "killed by signal 9"),
        (["exited with 137"], 255, child.StageKilledError, "killed by signal 9"),
        (["exited with 143"], 255, child.StageKilledError, "killed by signal 15"),
        (
            ["error: params.yaml: x", "ERROR: exited with 2"],
            255,
            child.DvcFailedError,
            "params.yaml: x",
        ),
        (["ERROR: exited with 255"], 255, child.DvcFailedError, "exited with 255"),
        ([], -9, child.StageKilledError, "DVC's process was killed by signal 9"),
        ([], 1, child.DvcFailedError, "dvc ended with status 1"),
    ],
)
def test_only_a_kill_is_worth_another_try(
    lines: list[str], status: int, kind: type[Exception], message: str
) -> None:
    found = child.failure(lines, status)
    assert type(found) is kind
    assert message in str(found)


def test_a_clone_is_exactly_the_commit_whatever_a_killed_run_left_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = tmp_path / "origin"
    origin.mkdir()
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    git(origin, "init", "--quiet", "--initial-branch", "main")
    (origin / ".dvc").mkdir()
    for name, text in ((".dvc/config", ""), ("dvc.yaml", "stages: {}\n"), ("code", "one\n")):
        (origin / name).write_text(text)
    git(origin, "add", "--all")
    git(origin, *identity, "commit", "--quiet", "--message", "one")
    first = head(origin)
    with clone(str(origin), commit=first) as root:
        (root / "code").write_text("edited\n")
        (root / "left").write_text("by a killed run\n")
        (root / ".git/index.lock").write_text("")
        (root / "results/ledger").mkdir(parents=True)
        (root / "results/ledger/row.json").write_text("{}\n")
        # Meanwhile it is nobody else's: another run gets another clone, with the same state folder.
        with clone(str(origin), branch="main") as other:
            assert other != root
            assert (other / ".scoremodel").resolve() == (root / ".scoremodel").resolve()
    (origin / "code").write_text("two\n")
    git(origin, *identity, "commit", "--quiet", "--all", "--message", "two")
    with clone(str(origin), commit=first) as root:
        assert (root / "code").read_text() == "one\n"
        assert not (root / "left").exists()
        assert (root / "results/ledger/row.json").exists()  # a row that nobody has committed yet
    with clone(str(origin), branch="main") as root:
        assert (root / "code").read_text() == "two\n"
        assert head(root) == head(origin)
    with (
        pytest.raises(ValueError, match="has no commit 0000"),
        clone(str(origin), commit="0" * 40),
    ):
        pass
    with (
        pytest.raises(ValueError, match="has no branch 'other'"),
        clone(str(origin), branch="other"),
    ):
        pass
