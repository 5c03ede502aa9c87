"""Deployments: what they work on, who may have workers run what, and that no secret gets anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from flows.deployments import here, require_allowed
from tasks.files.git import git
from tests.flows.conftest import Site, until
from tests.workspace import ROOT

SECRET = "s3cretS3cretS3cret"
FETCHED = f"https://token:{SECRET}@127.0.0.1:1/x.git"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a git repository with this one's deployments, which is the current folder."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "trunk")
    (tmp_path / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCOREMODEL_REPOSITORY", raising=False)
    here.cache_clear()
    return tmp_path


def test_deployments_work_on_this_folder_and_say_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(project, "remote", "add", "origin", FETCHED)
    assert here() == {"repository": str(project), "branch": "trunk"}
    assert here() == {"repository": str(project), "branch": "trunk"}
    works, pushes, schedules = capsys.readouterr().out.splitlines()  # said once
    assert works.split() == ["works", "on", str(project), "(this", "folder),", "branch", "trunk"]
    assert "nothing" in pushes
    assert "nightly 0 3 * * * UTC" in schedules


def test_another_repository_is_named_by_a_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREMODEL_REPOSITORY", "origin")
    git(project, "remote", "add", "origin", "git@example.com:team/x.git")
    assert here()["repository"] == "git@example.com:team/x.git"


_NIGHTLY = "error: prefect.yaml: nightly: "
_VARIABLE = "error: SCOREMODEL_REPOSITORY: an address"


@pytest.mark.parametrize(
    ("changed", "repository", "message"),
    [
        ({"parameters": {"repository": FETCHED}}, "", f"{_NIGHTLY}repository: an address"),
        ({"parameters": {"remote": f"s3://a:{SECRET}@b"}}, "", f"{_NIGHTLY}remote: an address"),
        ({"parameters": {"repository": "{{ $THERE }}"}}, "", f"{_NIGHTLY}repository: an address"),
        ({"schedules": [{"parameters": {"remote": FETCHED}}]}, "", f"{_NIGHTLY}remote: an address"),
        ({}, FETCHED, _VARIABLE),
        ({}, "origin", _VARIABLE),
    ],
)
def test_a_secret_is_refused_before_anything_is_deployed(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    repository: str,
    message: str,
) -> None:
    git(project, "remote", "add", "origin", FETCHED)
    monkeypatch.setenv("SCOREMODEL_REPOSITORY", repository)
    yaml, path = YAML(), project / "prefect.yaml"
    content = yaml.load(path)
    (nightly,) = (one for one in content["deployments"] if one["name"] == "nightly")
    nightly.update(changed)
    yaml.dump(content, path)
    with pytest.raises(SystemExit, match="is not allowed, allowed: an absolute folder") as said:
        here()
    assert str(said.value).startswith(message)
    assert SECRET not in str(said.value)


@pytest.mark.parametrize(
    ("listed", "repository", "taken"),
    [
        ("/srv/a /srv/b", "/srv/b", True),
        ("/srv/a,\n/srv/team/", "/srv/team/b", True),
        ("https://h/team/", "https://h/team/x.git", True),
        ("/srv/a", "/srv/ab", False),
        ("/srv/a", "/srv/a/b", False),
        ("/srv/team/", "/srv/team-of-others/b", False),
        ("https://h/team/", "git@h:team/x.git", False),
    ],
)
def test_a_worker_takes_what_its_list_names(
    monkeypatch: pytest.MonkeyPatch, listed: str, repository: str, taken: bool
) -> None:
    monkeypatch.setenv("SCOREMODEL_REPOSITORIES", listed)
    require_allowed(repository)  # of a run without a deployment
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "one")
    if taken:
        require_allowed(repository)
    else:
        with pytest.raises(ValueError, match="is not allowed on this worker, allowed: "):
            require_allowed(repository)


def _ended(site: Site, run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = httpx.get(f"{site.cluster.url}/flow_runs/{run}", timeout=30).json()
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    ended: dict[str, Any] = until(look)
    return ended


def _ask(site: Site, deployment: str, **parameters: Any) -> httpx.Response:
    found = httpx.get(f"{site.cluster.url}/deployments/name/{deployment}", timeout=30).json()
    place = f"{site.cluster.url}/deployments/{found['id']}/create_flow_run"
    return httpx.post(place, json={"parameters": parameters}, timeout=30)


@pytest.mark.slow
def test_a_worker_runs_no_repository_that_only_the_run_asks_for(training_site: Site) -> None:
    site = training_site
    site.worker("cpu", "strict", SCOREMODEL_REPOSITORIES="")
    head = site.workspace.git("rev-parse", "HEAD").strip()
    mine = str(site.workspace.root)
    asked = _ask(site, "stage/cpu", stage="check", revision=head, repository=mine)
    run = _ended(site, asked.json()["id"])
    own = site.cluster.project
    assert (
        f"repository: {mine!r} is not allowed on this worker, allowed: {own};"
        in (run["state"]["message"])
    )
    assert not (site.folder / "machines/strict").exists()  # nothing was fetched


@pytest.mark.slow
def test_no_secret_reaches_the_server_or_a_line(training_site: Site) -> None:
    """Of a parameter, a deployment, git's origin, or the DVC remote in `.dvc/config.local`."""
    site, lines = training_site, list[str]()
    site.workspace.git("remote", "add", "origin", FETCHED)
    head = site.workspace.git("rev-parse", "HEAD").strip()
    stage = {"stage": "check", "revision": head}
    for asked in (
        _ask(site, "pipeline/nightly", repository=FETCHED),
        _ask(site, "pipeline/nightly", remote=f"s3://key:{SECRET}@bucket"),
        _ask(site, "stage/cpu", **stage, repository=f"git:{SECRET}@example.com:x.git"),
        _ask(site, "stage/cpu", **stage, repository="/srv/x", remote=f"https://h/x?sig={SECRET}"),
    ):
        assert asked.status_code == 409, asked.text
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "sweep"]
    root, env = site.workspace.root, site.cluster.environment()
    for more, status in ({"SCOREMODEL_REPOSITORY": "origin"}, 1), (dict[str, str](), 0):
        done = subprocess.run(deploy, cwd=root, env=env | more, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        lines.append(done.stdout + done.stderr)
    for url in (f"webdavs://me:{SECRET}@127.0.0.1:1/x", f"https://127.0.0.1:1/x?token={SECRET}"):
        site.workspace.dvc("remote", "modify", "--local", "storage", "url", url)
        lines.append(site.python("-m", "flows.pipeline", "--executor", "workers", status=2))
        assert "is not allowed, allowed: an absolute folder" in lines[-1]
    lines.append(site.python("-m", "flows.pipeline", "check", "--push", status=1))
    assert "dvc push failed" in lines[-1]
    assert SECRET not in "".join(lines)
    stored = [path for path in site.cluster.folder.rglob("*") if path.is_file()]
    assert {"prefect.db", "server.log"} <= {path.name for path in stored}
    assert [path for path in stored if SECRET.encode() in path.read_bytes()] == []
