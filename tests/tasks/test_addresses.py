"""Addresses: which are allowed, the same ones by the server's check, and lines without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError

from flows.compare import compare
from flows.pipeline import pipeline
from flows.sweep import sweep
from flows.worker import stage
from tasks.files.addresses import cleaned, require_remote, require_repository
from tasks.files.git import GitError, git

REPOSITORIES = [
    "/srv/project",
    "/home/me/My Projects/a..b",
    "file:///srv/project.git",
    "https://example.com/team/project.git",
    "https://example.com:8443/team/My%20Project/_git/project",
    "ssh://git@example.com:22/team/project.git",
    "ssh://example.com/team/project",
    "git@example.com:team/project.git",
]
NO_REPOSITORIES = [
    "",
    "project",
    "../project",
    "/srv/../etc/project",
    "https://example.com/team/%2e%2e/other",
    "git@example.com:../other",
    "http://example.com/project",
    "git://example.com/project",
    "git@example.com",
    "--upload-pack=touch /tmp/x",
    "ssh://-oProxyCommand=x/y",
    "git@example.com:-x",
    "ext::sh -c touch% /tmp/x",
    "https://user:s3cret@example.com/x.git",
    "https://s3cret@example.com/x.git",
    "HTTPS://user:s3cret@example.com/x.git",
    "https://user:with a s3cret@example.com/x.git",
    "https://example.com/x.git?private_token=s3cret",
    "https://example.com/x.git#s3cret",
    "ssh://user:s3cret@example.com/x.git",
    "ssh://user:a/s3cret@example.com/x.git",
    "user:s3cret@example.com:x.git",
    "user:a@s3cret@example.com:x.git",
    "/srv/project\nhttps://user:s3cret@example.com",
]
REMOTES = [
    "/srv/storage",
    "s3://bucket",
    "s3://bucket/path=x/y",
    "gs://bucket/path",
    "azure://container/path",
    "ssh://me@example.com:22/srv/storage",
    "https://example.com/storage",
    "webdavs://example.com/remote.php/dav/files/me",
    "remote://storage/path",
]
NO_REMOTES = [
    "",
    "storage",
    "../storage",
    "-x",
    "s3://key:s3cret@bucket",
    "ssh://me:s3cret@example.com/storage",
    "ssh://me:a@s3cret@example.com/storage",
    "webdavs://me:s3cret@example.com/storage",
    "webdavs://s3cret@example.com/storage",
    "https://example.com/storage?token=s3cret",
    "https://bucket.example.com/x?X-Amz-Signature=s3cret",
    "https://account.example.com/container?sv=1&sig=s3cret",
    "azure://AccountName=x;AccountKey=s3cret",
    "ext::sh -c x",
]


@pytest.mark.parametrize(
    ("require", "key", "taken", "refused"),
    [
        (require_repository, "repository", REPOSITORIES, NO_REPOSITORIES),
        (require_remote, "remote", REMOTES, NO_REMOTES),
    ],
)
def test_which_addresses_are_taken_here_and_by_the_server(
    require: Callable[[str], str], key: str, taken: list[str], refused: list[str]
) -> None:
    """The schema is what a deployment carries, by which the server checks a run's parameters."""
    schemas = [dict(parameter_schema(flow)) for flow in (pipeline, compare, sweep, stage)]

    def check(schema: dict[str, Any], address: str) -> None:
        validate({key: address}, schema, raise_on_error=True, ignore_required=True)

    for address in taken:
        assert require(address) == address
        for schema in schemas:
            check(schema, address)
    for address in refused:
        with pytest.raises(ValueError, match="is not allowed, allowed: an absolute folder") as said:
            require(address)
        assert "s3cret" not in str(said.value)
        assert "\n" not in str(said.value)
        for schema in schemas:
            with pytest.raises(ValidationError):
                check(schema, address)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "ERROR: https://me:s3cret@example.com/x is away",
            "ERROR: https://…@example.com/x is away",
        ),
        (
            "at 'https://me:s/3/cr@et@example.com:80/x/': 403",
            "at 'https://…@example.com:80/x/': 403",
        ),
        ("s3+http://s3cret@host/x", "s3+http://…@host/x"),
        ("to me:s3cret@example.com:x.git", "to …@example.com:x.git"),
        ("to 'me:s/3@cret@example.com:x.git'", "to '…@example.com:x.git'"),
        ("https://h/x.git?private_token=s3cret&a=1", "https://h/x.git?private_token=…&a=1"),
        ("GET https://h/x?a=1&token=s3cret HTTP/1.1", "GET https://h/x?a=1&token=… HTTP/1.1"),
        ("https://h/x?key=s3cret", "https://h/x?key=…"),
        (
            "https://b/x?X-Amz-Credential=s3cret&X-Amz-Date=1&X-Amz-Signature=s3cret",
            "https://b/x?X-Amz-Credential=…&X-Amz-Date=1&X-Amz-Signature=…",
        ),
        ("https://b/x?X-Goog-Signature=s3cret", "https://b/x?X-Goog-Signature=…"),
        ("https://a/c?sv=1&sig=s3%2Fcret%3D", "https://a/c?sv=1&sig=…"),
        ("AccountKey=s3/cret==;x", "AccountKey=…"),
        ("AWS_SECRET_ACCESS_KEY=s3cret", "AWS_SECRET_ACCESS_KEY=…"),
        # And what must stay readable.
        ("fetching git@example.com:team/x.git", "fetching git@example.com:team/x.git"),
        ("Running stage 'train@digits-ve-0':", "Running stage 'train@digits-ve-0':"),
        ("Stage 'a/dvc.yaml:train@digits-0' failed", "Stage 'a/dvc.yaml:train@digits-0' failed"),
        ("step 5/10, loss=0.5, key=a", "step 5/10, loss=0.5, key=a"),
        ("see https://example.com/x?page=2#top", "see https://example.com/x?page=2#top"),
    ],
)
def test_a_line_shows_no_credentials(line: str, shown: str) -> None:
    assert cleaned(line) == shown


def test_a_long_line_is_cleaned_in_no_time() -> None:
    began = time.monotonic()
    assert cleaned("x" * 200_000) == "x" * 200_000
    assert time.monotonic() - began < 5


def test_git_s_own_line_shows_no_credentials(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(GitError) as said:
        git(tmp_path, "fetch", "https://127.0.0.1:1/x.git?private_token=s3cret")
    assert "private_token=…" in str(said.value)
    assert "s3cret" not in str(said.value)
