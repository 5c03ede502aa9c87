"""Cleaning up: what is old and unused goes, what is young, locked or needed by a commit stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from filelock import FileLock

from flows.clean import main
from tasks.files.stage import run
from tasks.params.errors import ParamsError
from tasks.results import cleaning

OLD = time.time() - 40 * 86400
STAMP = f"{int(OLD)} +0000"  # git's


class Project:
    """A git and DVC repository with one stage, and what runs have left in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "params.yaml").write_text("value: 1\ncheckpoints: {folder: .scoremodel/state}\n")
        (root / "dvc.yaml").write_text(
            "stages:\n  make:\n    cmd: mkdir -p made && grep value params.yaml > made/file\n"
            "    params: [value]\n    outs: [made]\n"
        )
        (root / ".gitignore").write_text("/.scoremodel/\n/made\n")
        self.git("init", "-q")
        self.dvc("init", "-q")
        self.make(1)
        self.git("add", "-A")
        self.git("commit", "-qm", "one")

    def run(self, *command: str, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=os.environ
            | {
                f"GIT_{who}_{what}": "a@example.com"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            }
            | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def git(self, *arguments: str, **more: str) -> str:
        return self.run("git", *arguments, **more)

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, DVC_NO_ANALYTICS="true")

    def cached(self) -> set[str]:
        return {path.parent.name + path.name for path in self.root.glob(".dvc/cache/files/md5/*/*")}

    def make(self, value: int) -> set[str]:
        """Run the stage with another value; return what is new in the cache."""
        before = self.cached()
        text = (self.root / "params.yaml").read_text().splitlines()
        (self.root / "params.yaml").write_text("\n".join([f"value: {value}", *text[1:], ""]))
        with Repo(str(self.root)) as repo:  # quicker than DVC's own command
            repo.reproduce()
        return self.cached() - before

    def reference(self, name: str, date: str) -> str:
        """Make a reference to a commit of all that is there, and go back to the branch's."""
        self.git("add", "-A")
        tree, parent = self.git("write-tree"), self.git("rev-parse", "HEAD")
        made = self.git("commit-tree", tree, "-p", parent, "-m", "made", GIT_COMMITTER_DATE=date)
        self.git("update-ref", name, made)
        self.git("reset", "-q", "--hard")
        return name

    def references(self) -> set[str]:
        return set(
            self.git("for-each-ref", "--format=%(refname)", "refs/exps", "refs/scoremodel").split()
        )

    def age(self) -> None:
        """Make all in the cache and all that runs have left forty days old."""
        for folder in (self.root / ".scoremodel", self.root / ".dvc/cache"):
            for path in (folder, *folder.rglob("*")):
                os.utime(path, (OLD, OLD), follow_symlinks=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SCOREMODEL_WORKSPACES", str(tmp_path / "workspaces"))
    root = tmp_path / "project"
    (root / ".scoremodel").mkdir(parents=True)
    monkeypatch.chdir(root)
    return Project(root)


def clean(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["clean", *arguments])
    run(main)


def left(project: Project, name: str) -> Path:
    """Leave something of a run's, with its lock."""
    path = project.root / ".scoremodel" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text("{}")
    else:
        path.mkdir()
        (path / "step-3.safetensors").write_bytes(b"0" * 2_000_000)
    path.with_name(f"{path.stem}.lock").touch()
    return path


def test_old_states_go_and_young_and_locked_ones_stay(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, locked, question = (
        left(project, name) for name in ("state/a", "state/b", "compare/c.json")
    )
    project.age()
    young = left(project, "state/d")
    orphan = project.root / ".scoremodel/worktrees/gone.lock"
    orphan.parent.mkdir()
    orphan.touch()
    os.utime(orphan, (OLD, OLD))
    with FileLock(f"{locked}.lock"):
        clean(monkeypatch)
        assert old.exists()
        assert orphan.exists()
        said = capsys.readouterr().out
        assert f"state         40.0 d       2.00 MB  {old}\n" in said
        assert f"{locked}: in use, left alone" in said
        assert f"lock          40.0 d       0.00 MB  {orphan}\n" in said
        assert str(young) not in said
        assert said.endswith("4 things, 2.00 MB; to remove them: --yes\n")
        clean(monkeypatch, "--yes")
    for path in (old, question, orphan):
        assert not path.exists(), path
        assert not path.with_name(f"{path.stem}.lock").exists(), path
    assert (locked / "step-3.safetensors").exists()
    assert young.exists()
    assert "removed" in capsys.readouterr().out
    clean(monkeypatch, "--yes", "--older", "30d")
    assert not locked.exists()


def test_a_worktree_that_a_killed_run_left_goes_and_one_in_use_keeps_all_it_may_need(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = project.root / ".scoremodel/worktrees"
    for name in ("killed", "used"):
        project.git("worktree", "add", "-q", "--detach", str(home / name))
        (home / name / ".scoremodel").symlink_to(project.root / ".scoremodel")
    state = left(project, "state/young")
    mine = project.make(2)
    project.make(1)
    reference = project.reference(f"refs/exps/ab/{'c' * 38}/old", STAMP)
    project.age()
    os.utime(state / "step-3.safetensors")
    with FileLock(home / "used.lock"):
        clean(monkeypatch, "--yes")
    said = capsys.readouterr().out
    assert f"experiments and cache are left alone: a run holds {home / 'used.lock'}" in said
    assert not (home / "killed").exists()
    assert str(home / "killed") not in project.git("worktree", "list")
    assert (home / "used/params.yaml").exists()
    assert state.exists()  # the worktree's link to what all share was not followed
    assert reference in project.references()
    assert mine <= project.cached()


def test_what_no_commit_needs_leaves_the_cache_and_nothing_runs_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = project.make(2)
    of_old = project.make(3)
    old = project.reference(f"refs/exps/ab/{'c' * 38}/old", STAMP)
    of_young = project.make(4)
    young = project.reference(f"refs/exps/ab/{'c' * 38}/young", f"{int(time.time())} +0000")
    of_kept = project.make(5)
    kept = project.reference("refs/scoremodel/kept/results", STAMP)
    stash = project.reference("refs/exps/stash", STAMP)  # DVC's own
    project.age()
    fresh = project.make(6)
    uncommitted = project.make(7)
    for name in uncommitted:
        os.utime(project.root / ".dvc/cache/files/md5" / name[:2] / name[2:], (OLD, OLD))
    everything = project.cached()
    clean(monkeypatch)
    listed = capsys.readouterr().out
    assert project.cached() == everything
    assert old in project.references()
    assert f"cache: {len(nobody | of_old)} files" in listed
    assert f"not yet pushed, kept: {kept} in {project.root}" in listed
    clean(monkeypatch, "--yes")
    assert capsys.readouterr().out.splitlines()[:-2] == listed.splitlines()[:-2]
    assert project.references() == {young, kept, stash}
    assert project.cached() == everything - nobody - of_old
    assert of_young | of_kept | fresh | uncommitted <= project.cached()
    assert "up to date" in project.dvc("repro")
    project.git("checkout", "-q", "--", ".")
    project.dvc("checkout")
    assert "up to date" in project.dvc("repro")


def test_a_stage_at_work_keeps_the_cache(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = project.make(2)
    project.git("checkout", "-q", "--", ".")
    project.dvc("checkout")
    project.age()
    started = project.root / "started"
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(
        text.replace("cmd: ", "cmd: touch started && sleep 600 && ")
    )
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        clean(monkeypatch, "--yes")
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    said = capsys.readouterr().out
    assert "experiments and cache are left alone" in said
    assert f"(PID {process.pid})" in said
    assert nobody <= project.cached()


def test_a_cache_that_others_may_share_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = project.root.parent / "shared"
    (project.root / ".dvc/cache").rename(shared)
    project.dvc("cache", "dir", "--local", str(shared))
    clean(monkeypatch)
    assert f"{shared}/files/md5 may be others' cache too" in capsys.readouterr().out


def test_a_mirror_s_place_is_cleaned_by_its_own_commits(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = project.make(2)
    of_kept = project.make(3)
    project.git("add", "-A")
    home = project.root.parent / "workspaces/project-1"
    home.mkdir(parents=True)
    project.git("clone", "-q", "--mirror", ".", str(home / "mirror.git"))
    kept = project.reference("refs/scoremodel/kept/results", STAMP)
    project.git("push", "-q", str(home / "mirror.git"), kept)
    project.git("update-ref", "-d", kept)
    project.age()
    (project.root / ".dvc/cache").rename(home / "cache")
    state = home / "state/old"
    state.mkdir(parents=True)
    os.utime(state, (OLD, OLD))
    clean(monkeypatch, "--yes")
    there = {path.parent.name + path.name for path in (home / "cache/files/md5").glob("*/*")}
    assert there.isdisjoint(nobody)
    assert of_kept <= there
    assert not state.exists()
    assert f"not yet pushed, kept: {kept} in {home / 'mirror.git'}" in capsys.readouterr().out


@pytest.mark.parametrize("age", ["30", "1w", "-1d"])
def test_a_wrong_age_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], age: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        clean(monkeypatch, f"--older={age}")
    assert ended.value.code == 2
    allowed = "a number with s, m, h or d, such as 90s, 30m, 2h, 30d"
    assert (
        capsys.readouterr().err == f"error: --older: {age!r} is not allowed, allowed: {allowed}\n"
    )


def test_elsewhere_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(SystemExit) as ended:
        clean(monkeypatch)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/params.yaml: no such file")


@pytest.mark.parametrize(
    "text", ["checkpoints: {folder: /}", "checkpoints: {folder: results}", "- 1"]
)
def test_a_folder_that_is_not_the_states_own_is_not_emptied(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml: checkpoints\.folder: is missing or not"):
        cleaning.clean(tmp_path, 0.0, True)
