"""What is there of a machine is shared: cores, and GPUs, of which a stage has what it claims to itself."""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
from pathlib import Path

import pytest

from flows.hand import _Followed
from flows.run import REFUSED, at_work, carry_out
from flows.stages import At
from tasks.files.git import GitError
from tasks.files.gpus import _installed_gpus, gpus, some_gpus
from tasks.files.graph import StageNode
from tasks.files.schedule import Done, schedule
from tasks.params.asked import Asked
from tests.flows.test_pipeline import Recorder


def workspace(folder: Path, device: str = "auto") -> Path:
    (folder / "params.yaml").write_text(f"device: {device}\n")
    return folder


def test_a_machine_s_gpus_are_those_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.files.gpus._installed_gpus", dict)
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
    _installed_gpus.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(workspace(tmp_path)) == ("GPU-aaa", "GPU-bbb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus(workspace(tmp_path)) == ("GPU-bbb",)
    smi.write_text("#!/bin/sh\nexit 9\n")  # as when the driver is busy: no answer is not no GPU
    assert gpus(workspace(tmp_path)) == ("GPU-bbb",)
    _installed_gpus.cache_clear()
    with pytest.raises(ValueError, match="nvidia-smi does not say which GPUs there are"):
        gpus(workspace(tmp_path))


def test_stages_that_claim_a_gpu_run_side_by_side_as_far_as_there_are_any() -> None:
    nodes = [StageNode(f"b{n}", (), cores=0, gpus=1) for n in range(6)]
    for count, most in ((2, 2), (0, 6)):  # where there is none, the claim is void
        recorder = Recorder()
        room = {"cores": 4, "gpus": count} if count else {"cores": 4}
        done, failed = schedule(nodes, recorder.submit, lambda room=room: room)
        assert len(done) == 6
        assert not failed
        assert recorder.most_stages == most


def test_a_mistake_that_shows_after_the_work_is_a_failure_not_a_refusal() -> None:
    def act(_: At) -> None:
        with at_work():
            raise GitError("git push: rejected")

    state = carry_out(act, Asked())
    assert state.is_failed()
    assert state.name != REFUSED
    assert state.message == "git push: rejected"


def test_an_interrupted_schedule_waits_for_what_it_has_ended() -> None:
    ended, over = threading.Event(), threading.Event()

    def work() -> Done:
        ended.wait(10)
        over.set()
        return Done("a", "ran")

    def submit(node: StageNode) -> cf.Future[Done]:
        if node.name == "b":
            raise KeyboardInterrupt
        return pool.submit(work)

    nodes = [StageNode("a", ()), StageNode("b", ())]
    with cf.ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            schedule(nodes, submit, dict, halt=ended.set)
        assert over.is_set()


def test_only_silence_while_the_server_answers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("flows.hand.time.monotonic", lambda: now[0])
    followed = _Followed(None, StageNode("a", (), pool="gpu"), False, None)  # type: ignore[arg-type]
    followed.silent_for("running")
    now[0] += 500.0  # the server was down, and nobody could look
    assert followed.silent_for("running") == 5.0
    for _ in range(80):
        now[0] += 1.0
        silent = followed.silent_for("running")
    assert silent == 85.0
    assert followed.silent_for("a sign of life") == 0.0


def test_a_stage_has_all_the_gpus_that_it_claims_or_waits_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.files.gpus._installed_gpus", dict)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    root, never, said = workspace(tmp_path), threading.Event(), list[str]()
    second: list[dict[str, str]] = []

    def take() -> None:
        with some_gpus(root, 2, said.append, never) as environment:
            second.append(environment)

    with some_gpus(root, 2, said.append, never) as first:
        assert first == {"CUDA_VISIBLE_DEVICES": "0,1"}
        waiting = threading.Thread(target=take)
        waiting.start()
        waiting.join(timeout=2)
        assert second == []
        assert said == ["waits for 2 GPUs: another stage is on 0, 1, 2"]
        with some_gpus(root, 1, said.append, never) as one:  # it does not sit on the third
            assert one == {"CUDA_VISIBLE_DEVICES": "2"}
            stop = threading.Event()

            def end(line: str) -> None:
                said.append(line)
                stop.set()

            with some_gpus(root, 1, end, stop) as none:
                assert none == {}
            assert said[1:] == ["waits for a GPU: another stage is on 0, 1, 2"]
    waiting.join(timeout=60)
    assert second == [{"CUDA_VISIBLE_DEVICES": "0,1"}]
    with (
        pytest.raises(ValueError, match=r"meta\.gpus: 4 is not allowed .* at most 3"),
        some_gpus(root, 4, said.append, never),
    ):
        pass
