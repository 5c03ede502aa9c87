"""GPUs of one machine: as many stages as there are, each on one of its own."""

from __future__ import annotations

import concurrent.futures as cf
import os
import shutil
import threading
from pathlib import Path

import pytest
from dvc.config import Config

from flows import child
from flows.clones import (
    GitError,
    clone,
    commit_results,
    default_remote,
    git,
    head,
    require_results_branch,
)
from flows.dispatch import _Signs
from flows.graph import StageNode
from flows.local import Done, gpus, one_gpu
from flows.pipeline import schedule
from flows.run import REFUSED, at_work, carry_out
from tests.flows.test_pipeline import Recorder


def workspace(folder: Path, device: str = "auto") -> Path:
    (folder / "params.yaml").write_text(f"device: {device}\n")
    return folder


def test_a_machine_s_gpus_are_those_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.local._installed_gpus", dict)
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
    monkeypatch.setattr("flows.local._installed_gpus", dict)
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
        waiting.join(timeout=60)
    assert third == [second]


def test_stages_that_claim_a_gpu_run_side_by_side_as_far_as_there_are_any() -> None:
    nodes = [StageNode(f"b{n}", (), cores=0, gpus=1) for n in range(6)]
    for count, most in ((2, 2), (0, 6)):  # where there is none, the claim is void
        recorder = Recorder()
        done, failed = schedule(nodes, 4, recorder.submit, recorder.first_done, gpus=count)
        assert len(done) == 6
        assert not failed
        assert recorder.most_stages == most


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


IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def origin_at(folder: Path, config: str = "") -> Path:
    """Return a repository with one commit on main."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "config", "receive.denyCurrentBranch", "ignore")
    (folder / ".dvc").mkdir()
    for name, text in ((".dvc/config", config), ("dvc.yaml", "stages: {}\n"), ("code", "one\n")):
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, *IDENTITY, "commit", "--quiet", "--message", "one")
    return folder


def add_row(root: Path, name: str) -> Path:
    row = root / "results/ledger" / f"{name}.json"
    row.parent.mkdir(parents=True, exist_ok=True)
    row.write_text("{}\n")
    return row


def test_results_are_committed_on_top_and_rows_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    with clone(str(origin), branch="main") as root:
        add_row(root, "a")
        assert commit_results(root, "results", "first") is not None
        assert commit_results(root, "results", "again") is None  # nothing new
    (origin / "code").write_text("two\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
    shutil.rmtree(tmp_path / "workspaces")
    with clone(str(origin), branch="main") as root:  # on another machine
        add_row(root, "b")
        commit_results(root, "results", "second")
    listed = git(origin, "ls-tree", "-r", "--name-only", "results").split()
    assert {"results/ledger/a.json", "results/ledger/b.json"} <= set(listed)
    assert git(origin, "show", "results:code") == "two\n"


def test_rows_outlive_a_push_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    hook = origin / ".git/hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with clone(str(origin), branch="main") as root:
        add_row(root, "a")
        with pytest.raises(GitError, match="git push"):
            commit_results(root, "results", "first")
    (origin / "code").write_text("two\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
    hook.unlink()
    with clone(str(origin), branch="main") as root:
        assert (root / "results/ledger/a.json").exists()
        commit_results(root, "results", "second")
    assert "results/ledger/a.json" in git(origin, "ls-tree", "-r", "--name-only", "results")


def test_other_people_s_branches_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    git(origin, "branch", "behind")
    git(origin, "checkout", "--quiet", "-b", "develop")
    (origin / "theirs").write_text("work\n")
    git(origin, "add", "--all")
    git(origin, *IDENTITY, "commit", "--quiet", "--message", "theirs")
    git(origin, "checkout", "--quiet", "main")
    with clone(str(origin), branch="main") as root:
        assert require_results_branch(root, "new") == ""
        assert require_results_branch(root, "behind") == head(root)
        with pytest.raises(ValueError, match="commit_to: 'develop' has commits that are not in"):
            require_results_branch(root, "develop")
    never = threading.Event()
    state = carry_out(
        lambda root, stop: never.set(), str(origin), "main", None, "develop", "pipeline"
    )
    assert state.name == REFUSED
    assert not never.is_set()


def test_a_remote_that_is_relative_means_the_repository_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    config = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../storage\n"
    origin = origin_at(tmp_path / "origin", config)
    with clone(str(origin), branch="main") as root:
        found = default_remote(root)
        assert found is not None
        assert found.url == str(tmp_path / "storage")
    with clone(str(origin), branch="main", remote="s3://bucket/path") as root:
        assert Config(str(root / ".dvc"))["remote"]["flow"]["url"] == "s3://bucket/path"
    elsewhere = f"file://{origin}"
    with (
        pytest.raises(ValueError, match=r"'storage' is a folder relative to a workspace"),
        clone(elsewhere, branch="main"),
    ):
        pass


def test_a_mistake_that_shows_after_the_work_is_a_failure_not_a_refusal() -> None:
    def act(_: Path, __: threading.Event) -> None:
        with at_work():
            raise GitError("git push: rejected")

    state = carry_out(act, None, "main", None, None, "pipeline")
    assert state.is_failed()
    assert state.name != REFUSED
    assert state.message == "git push: rejected"


def test_an_interrupted_schedule_waits_for_what_it_has_ended() -> None:
    ended, over = threading.Event(), threading.Event()

    def work() -> Done:
        ended.wait(10)
        over.set()
        return Done("a", "ran")

    def interrupt(_: object) -> cf.Future[Done]:
        raise KeyboardInterrupt

    nodes = [StageNode("a", ())]
    with cf.ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            schedule(nodes, 1, lambda _: pool.submit(work), interrupt, halt=ended.set)
        assert over.is_set()


def test_only_silence_while_the_server_answers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("flows.dispatch.time.monotonic", lambda: now[0])
    signs = _Signs()
    signs.silent_for("running")
    now[0] += 500.0  # the server was down, and nobody could look
    assert signs.silent_for("running") == 5.0
    for _ in range(80):
        now[0] += 1.0
        silent = signs.silent_for("running")
    assert silent == 85.0
    assert signs.silent_for("a sign of life") == 0.0


def test_a_clone_is_exactly_the_commit_whatever_a_killed_run_left_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
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
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
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
