"""Worktrees are exactly a commit, share what is unfinished, and what they measured is not lost."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dvc.config import Config
from filelock import FileLock

from flows.run import REFUSED, carry_out
from tasks.files.dvc import StoppedError
from tasks.files.git import GitError, git, head
from tasks.files.worktree import beside, default_remote, link_sources, of_repository
from tasks.params.asked import Asked
from tasks.results.branch import commit_results, require_results_branch

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
    with of_repository(str(origin), branch="main") as root:
        add_row(root, "a")
        assert commit_results(root, "results", "first") is not None
        assert commit_results(root, "results", "again") is None  # nothing new
    (origin / "code").write_text("two\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
    shutil.rmtree(tmp_path / "workspaces")
    with of_repository(str(origin), branch="main") as root:  # on another machine
        add_row(root, "b")
        commit_results(root, "results", "second")
    listed = git(origin, "ls-tree", "-r", "--name-only", "results").split()
    assert {"results/ledger/a.json", "results/ledger/b.json"} <= set(listed)
    assert git(origin, "show", "results:code") == "two\n"


def test_rows_outlive_a_run_that_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    for name, branch in (("a", None), ("b", None), ("c", "results")):
        with of_repository(str(origin), branch="main") as root:
            add_row(root, name)
            commit_results(root, branch, name)
    listed = git(origin, "ls-tree", "-r", "--name-only", "results").split()
    assert {f"results/ledger/{name}.json" for name in "abc"} <= set(listed)


def test_rows_outlive_a_push_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    hook = origin / ".git/hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with of_repository(str(origin), branch="main") as root:
        add_row(root, "a")
        with pytest.raises(GitError, match="git push"):
            commit_results(root, "results", "first")
    (origin / "code").write_text("two\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
    hook.unlink()
    with of_repository(str(origin), branch="main") as root:
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
    with of_repository(str(origin), branch="main") as root:
        assert require_results_branch(root, "new") == ""
        assert require_results_branch(root, "behind") == head(root)
        with pytest.raises(ValueError, match="commit_to: 'develop' has commits that are not in"):
            require_results_branch(root, "develop")
    never = threading.Event()
    asked = Asked(repository=str(origin), commit_to="develop")
    state = carry_out(lambda at: never.set(), asked)
    assert state.name == REFUSED
    assert not never.is_set()


def test_a_remote_that_is_relative_means_the_repository_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    config = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../storage\n"
    origin = origin_at(tmp_path / "origin", config)
    with of_repository(str(origin), branch="main") as root:
        assert default_remote(root) == (True, str(tmp_path / "storage"))
    with of_repository(str(origin), branch="main", remote="s3://bucket/path") as root:
        assert Config(str(root / ".dvc"))["remote"]["flow"]["url"] == "s3://bucket/path"
    elsewhere = f"file://{origin}"
    with (
        pytest.raises(ValueError, match=r"'storage' is a folder relative to a workspace"),
        of_repository(elsewhere, branch="main"),
    ):
        pass


def test_a_worktree_is_exactly_the_commit_whatever_a_killed_run_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    first = head(origin)
    with of_repository(str(origin), commit=first) as root:
        (root / "code").write_text("edited\n")
        # Meanwhile it is nobody else's: another run has another, with the same unfinished work.
        with of_repository(str(origin), branch="main") as other:
            assert other != root
            assert (other / ".scoremodel").resolve() == (root / ".scoremodel").resolve()
    assert not root.exists()
    (origin / "code").write_text("two\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "two")
    with of_repository(str(origin), commit=first) as root:
        assert (root / "code").read_text() == "one\n"
    with of_repository(str(origin), branch="main") as root:
        assert (root / "code").read_text() == "two\n"
        assert head(root) == head(origin)
    for missing in ({"commit": "0" * 40}, {"branch": "other"}):
        with (
            pytest.raises(ValueError, match=r"has no commit 0000|has no branch 'other'"),
            of_repository(str(origin), **missing),
        ):
            pass
    assert git(origin, "worktree", "list").count("\n") == 1


def test_what_killed_runs_have_left_goes_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    origin = origin_at(tmp_path / "origin")
    with of_repository(str(origin), branch="main") as root:
        place = root.parent
        left = place / "0123abcd"
        git(root, "worktree", "add", "--quiet", "--detach", str(left))
        (place / "0123abcd.lock").touch()
        stale = place.parent / "mirror.git/config.lock"  # of a machine that died
        stale.touch()
        os.utime(stale, (0, 0))
        with of_repository(str(origin), branch="main"):
            assert not left.exists()
            assert root.exists()
    assert not list(place.glob("*"))


def test_who_wants_another_s_worktree_waits_and_can_be_stopped(tmp_path: Path) -> None:
    origin = origin_at(tmp_path / "origin")
    said, stop = list[str](), threading.Event()

    def note(line: str) -> None:
        said.append(line)
        stop.set()

    lock = origin / ".scoremodel/worktrees/trial.lock"
    lock.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as somebody:
        theirs = somebody.submit(lambda: FileLock(lock, thread_local=False).acquire()).result()
        with (
            pytest.raises(StoppedError),
            beside(origin, head(origin), "trial", say=note, stop=stop),
        ):
            pass
        somebody.submit(theirs.lock.release).result()
    assert said == [f"waits for who holds {lock}"]


def test_a_worktree_that_has_a_name_is_made_again_after_a_kill(tmp_path: Path) -> None:
    origin = origin_at(tmp_path / "origin")
    (origin / "params.yaml").write_text("evaluation: {extractor: {}}\n")
    git(origin, "add", "--all")
    git(origin, *IDENTITY, "commit", "--quiet", "--message", "params")
    left = origin / ".scoremodel/worktrees/trial"
    git(origin, "worktree", "add", "--quiet", "--detach", str(left))
    (left / "code").write_text("half done\n")
    with beside(origin, head(origin), "trial") as root:
        assert root == left
        assert (root / "code").read_text() == "one\n"
    assert git(origin, "worktree", "list").count("\n") == 1


def test_what_a_source_s_path_names_is_there_too(tmp_path: Path) -> None:
    """It lies beside a `source.yaml` that git has, where nobody but the source names it."""
    origin = origin_at(tmp_path / "origin")
    raw = origin / "data/raw/mine"
    raw.mkdir(parents=True)
    (origin / "params.yaml").write_text("{}\n")
    (raw / "source.yaml").write_text("kind: arrays\npath: set.npz\n")
    git(origin, "add", "--all")
    git(origin, *IDENTITY, "commit", "--quiet", "--message", "source")
    (raw / "set.npz").write_text("numbers")
    (raw / "other.npz").write_text("not named")
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(origin), str(folder))
    link_sources(origin, folder)
    assert (folder / "data/raw/mine/set.npz").read_text() == "numbers"
    assert not (folder / "data/raw/mine/other.npz").exists()
    (folder / "data/raw/mine/set.npz").unlink()
    (folder / "data/raw/mine/set.npz.dvc").touch()  # DVC brings it
    link_sources(origin, folder)
    assert not (folder / "data/raw/mine/set.npz").exists()
