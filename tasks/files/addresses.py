"""Addresses of repositories and DVC remotes: which are allowed, and lines without the secrets in them.

An allowed address holds no password, token or query: it is stored by the Prefect server and shown in
lines. The patterns are in the JSON schema of the flows' parameters too, by which the server refuses an
address before it stores it, so they are of the kind that Python and JavaScript have in common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "REMOTE",
    "REPOSITORY",
    "cleaned",
    "require_listed",
    "require_remote",
    "require_repository",
]

# Ways out of a folder that a list of repositories names.
_NOT = r"(?!.*(?:(?:/|:)\.\.(?:/|$)|%2[eE]))"
_FOLDER = r"/[^\x00-\x1f\x7f]*"
_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)"
_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]+)?"
_PATH = r"/[^\x00-\x20\x7f?#@]*"

REPOSITORY = (
    rf"^{_NOT}(?:(?:file://)?{_FOLDER}|https://{_HOST}{_PATH}|ssh://{_USER}?{_HOST}{_PATH}"
    rf"|{_USER}[A-Za-z0-9][A-Za-z0-9._-]*:[^\x00-\x20\x7f?#@:-][^\x00-\x20\x7f?#@:]*)$"
)
"""What is allowed as the address of a git repository."""
REMOTE = (
    rf"^{_NOT}(?:{_FOLDER}|(?:ssh|hdfs|webhdfs)://{_USER}?{_HOST}(?:{_PATH})?"
    rf"|(?:s3|gs|azure|oss|gdrive|https?|webdavs?|remote)://{_HOST}(?:{_PATH})?)$"
)
"""What is allowed as the address of a DVC remote."""

_SHOWN = re.compile(r"(?:[a-z0-9+]+://)?[\w./-]*")  # nothing in which a secret could be
_NAMES = r"token|secret|passw|signature|credential|access_?key|account_?key|api_?key"
_SECRETS = (
    # Up to the last @ of a word, as passwords may hold "/" and "@".
    (re.compile(r"(?<=://)\S*@"), "…@"),
    (re.compile(r"(?<![^\s:@/'\"(])[^\s:@/'\"(]+:(?!//)\S+@(?=[\w.-]+[:/])"), "…@"),
    (re.compile(r"(?i)([?&;#](?:key|code|pass|pwd|auth\w*|jwt))=[^\s&'\"]+"), r"\1=…"),
    (re.compile(rf"(?i)(\bsig|(?<![\w.-])[\w.-]*(?:{_NAMES})[\w.-]*)=[^\s&'\"]+"), r"\1=…"),
)


def require_repository(address: str) -> str:
    """Return the address of a git repository if it is allowed.

    Args:
        address: the address.

    Returns:
        The same.

    Raises:
        ValueError: one line, without what may be a secret.
    """
    return _require(
        address,
        REPOSITORY,
        "an absolute folder, file:///FOLDER, https://HOST/PATH, ssh://[USER@]HOST/PATH or "
        "USER@HOST:PATH, without a password, token or query",
    )


def require_remote(address: str) -> str:
    """Return the address of a DVC remote if it is allowed.

    Args:
        address: the address.

    Returns:
        The same.

    Raises:
        ValueError: one line, without what may be a secret.
    """
    return _require(
        address,
        REMOTE,
        "an absolute folder, or s3://, gs://, azure://, oss://, gdrive://, ssh://, hdfs://, webhdfs://, "
        "https://, webdavs:// and a HOST/PATH, without a password, token or query, which belong into "
        "the environment or .dvc/config.local under keys of their own",
    )


def require_listed(repository: str, allowed: Sequence[str]) -> None:
    """Refuse a repository that whoever runs this worker has not allowed.

    Args:
        repository: its address.
        allowed: the addresses; one that ends in "/" stands for all that begin with it.

    Raises:
        ValueError: one line with what is allowed.
    """
    if not any(
        repository == one or (one[-1] == "/" and repository.startswith(one)) for one in allowed
    ):
        names = cleaned(", ".join(allowed)) or "none"
        raise ValueError(
            f"repository: {repository!r} is not allowed on this worker, allowed: {names}; others by "
            "SCOREMODEL_REPOSITORIES in the worker's environment, or by deploying from there"
        )


def _require(address: str, pattern: str, allowed: str) -> str:
    if re.fullmatch(pattern, address):
        return address
    shown = repr(address) if _SHOWN.fullmatch(address) else "an address that may hold a secret"
    raise ValueError(f"{shown} is not allowed, allowed: {allowed}")


def cleaned(text: str) -> str:
    """Return text without the credentials in its addresses: users, passwords, tokens, signatures."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text
