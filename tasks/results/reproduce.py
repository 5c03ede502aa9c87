"""Measure a row of the ledger again, at the revision that measured it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scoremodel.io.files import atomic_path
from tasks.files.layout import LEDGER, Configuration
from tasks.params.load import load_params
from tasks.results.history import git, resolve
from tasks.results.ledger import inputs, read_lock
from tasks.results.rows import PARTS, changes, commit_of, rows, short

__all__ = ["reproduce"]


def _find(key: str) -> list[dict[str, Any]]:
    """Return the rows, of all environments, of the one key that begins with `key`."""
    found = [row for row in rows() if row["name"].startswith(key)]
    if not found:
        raise ValueError(f"{key}: no row in {LEDGER} begins so; `list` shows them")
    if len({row["key"] for row in found}) > 1:
        names = ", ".join(row["name"] for row in found)
        raise ValueError(f"{key!r} stands for several rows: {names}")
    return found


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Yield a worktree of `commit` that uses this workspace's DVC cache, and remove it after."""
    folder = Path(tempfile.mkdtemp(prefix="reproduce-"))
    place = folder / "workspace"
    try:
        git("worktree", "add", "--detach", "--force", str(place), commit)
        from dvc.repo import Repo  # half a second that only this command needs

        local = Path(".dvc/config.local")
        if local.exists():
            shutil.copy(local, place / local)
        with Repo(".") as repo:
            settings = [("cache", "dir", repo.cache.local.path)]
            # Relative to a workspace that is elsewhere now; DVC has made it absolute.
            settings += [
                ("remote", name, remote["url"])
                for name, remote in repo.config["remote"].items()
                if "://" not in remote["url"]
            ]
        for kind, name, value in settings:
            arguments = ["dir", value] if kind == "cache" else ["modify", name, "url", value]
            _dvc(place, kind, arguments[0], "--local", *arguments[1:])
        for source in _sources():
            if source.exists() and not (place / source).exists():
                (place / source).parent.mkdir(parents=True, exist_ok=True)
                (place / source).symlink_to(source.resolve())
        # What of that revision's outputs and sources the cache holds; `dvc repro` makes the rest.
        subprocess.run(
            [sys.executable, "-m", "dvc", "checkout", "--quiet"],
            cwd=place,
            capture_output=True,
            check=False,
        )
        yield place
    finally:
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(place)], capture_output=True, check=False
        )
        shutil.rmtree(folder, ignore_errors=True)


def _sources() -> list[Path]:
    """Return what stages read beside git and DVC: downloads, and the extractor's file."""
    extractor = load_params().evaluation.extractor
    path = getattr(extractor, "path", None)
    return [
        Path("data/torchvision"),
        *([Path(path)] if path is not None and not Path(path).is_absolute() else []),
    ]


def _dvc(place: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=place, check=True)


def _set_params(path: Path, row: dict[str, Any]) -> None:
    """Give `params.yaml` the row's own values, and its configuration alone to run."""
    yaml = YAML()
    params = yaml.load(path)
    for stage in row["inputs"]["params"].values():
        for dotted, value in stage.items():
            if dotted == "cmd" or value == {"kind": "identity"}:  # which follows from vectors
                continue
            block, keys = params, dotted.split(".")
            for key in keys[:-1]:
                block = block.setdefault(key, {})
            block[keys[-1]] = value
    params["active"] |= {
        "datasets": [row["dataset"]],
        "models": [row["model"]],
        "train_seeds": [row["train_seed"]],
        "samplers": [row["sampler"]],
        **{key: [] for key in ("applications", "studies") if key in params["active"]},
    }
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        yaml.dump(params, out)


def reproduce(key: str, force: bool = False) -> tuple[bool, list[str]]:
    """Measure one row of the ledger again, in a worktree of the revision that measured it.

    The row's own parameters are written into `params.yaml` there, so that rows from experiments and
    from edited workspaces can be measured again too. DVC restores what its cache, its run-cache or
    a remote holds, and runs the rest.

    Args:
        key: the beginning of the row's name.
        force: run all stages, whatever can be restored.

    Returns:
        Whether the value is the same, and what to tell the reader.

    Raises:
        ValueError: if there is no such row, it names no revision, or a stage fails.
    """
    rows = _find(key)
    row = rows[0]
    if row["revision"] is None:
        raise ValueError(f"{row['name']}: names no git revision to reproduce")
    configuration = Configuration(*(row[part] for part in PARTS))
    stage = f"evaluate@{configuration.name}"
    said = []
    with _worktree(resolve(commit_of(row))) as place:
        _set_params(place / "params.yaml", row)
        options = ["--force"] if force else ["--pull"] if _has_remote() else []
        command = [sys.executable, "-m", "dvc", "repro", *options, stage]
        environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
        here = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join([here, environment.get("PATH", "")])
        print(f"{configuration.name} at {short(row['revision'])}", flush=True)
        if subprocess.run(command, cwd=place, env=environment, check=False).returncode:
            raise ValueError(f"{row['name']}: {stage} failed at revision {row['revision']}")
        record = json.loads((place / configuration.record).read_text(encoding="utf-8"))

        def read(path: str, _: str) -> dict[str, Any]:
            content: dict[str, Any] = json.loads((place / path).read_text(encoding="utf-8"))
            return content

        found = inputs(stage, read_lock(place / "dvc.lock"), read)
        found["data_sha256"] = record["data_sha256"]
    row = next((r for r in rows if r["environment"] == record["environment"]), row)
    other = changes(row["inputs"], found)
    if other or record["data_sha256"] != row["inputs"]["data_sha256"]:
        said.append("other inputs than the row's: " + ("; ".join(other) or "the data"))
    if record["environment"] != row["environment"]:
        said.append("another environment than the row's")
    different = [
        name for name, value in row["values"].items() if name in record and record[name] != value
    ]
    old, new = row["values"]["held_out"], record["held_out"]
    if not different:
        said.append(f"the same: {new['mean']:g}, seed by seed, and all other metrics")
        return True, said
    pairs = zip(old["by_seed"], new["by_seed"], strict=False)
    largest = max(abs(b - a) for a, b in pairs) / max(abs(old["mean"]), 1e-300)
    said.append(
        f"different: {old['mean']:g} then, {new['mean']:g} now; by seed at most {largest:.2%} of it; "
        f"different are: {', '.join(different)}"
    )
    return False, said


def _has_remote() -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "list"], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip())
