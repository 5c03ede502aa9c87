"""Measure a row of the ledger again, at the revision that measured it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scoremodel.io.files import atomic_path
from tasks.files.documents import read_json, read_text
from tasks.files.dvc import DvcFailedError, StoppedError, run_dvc
from tasks.files.layout import Configuration
from tasks.files.lock import read_lock
from tasks.files.worktree import beside, default_remote, link_sources, verify_remote
from tasks.results.history import resolve
from tasks.results.ledger import inputs
from tasks.results.plan import restored
from tasks.results.records import record_of
from tasks.results.rows import PARTS, changes, commit_of, find_rows, short

__all__ = ["reproduce"]


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield what the first SIGTERM or Ctrl-C sets, so that nothing is left behind; the second acts."""
    stop = threading.Event()

    def note(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    usual = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _beside(root: Path, commit: str, row: str, stop: threading.Event) -> Iterator[Path]:
    try:
        with beside(root, commit, f"reproduce-{row}", stop=stop) as place:
            yield place
    except StoppedError:
        raise InterruptedError(f"{row}: stopped") from None


def _announced(found: list[dict[str, Any]], stages: list[str]) -> str:
    """Return what will run, and how long what is trained and sampled took when it was measured."""
    drawn = found[0].get("count", 0) * len(found[0]["values"]["held_out"]["by_seed"])
    said = []
    for name in stages:
        stage = name.split("@")[0]
        took: dict[str, Any] = next(
            (t for one in found if (t := (one["seconds"] or {}).get(stage))), {}
        )
        seconds = took.get("seconds") or took.get("seconds_per_1000", 0) * drawn / 1000
        about = f" (about {max(seconds, 1):.0f} s on {took['device']})" if seconds else ""
        said.append(name + about)
    trains = any(name.startswith("train@") for name in stages)
    return f"{'trains' if trains else 'trains nothing'}; runs {', '.join(said) or 'nothing'}"


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
    params["active"] |= {"datasets": [row["dataset"]]} | {
        key: [] for key in ("applications", "studies", "external") if key in params["active"]
    }
    if "external" in row:
        params["active"]["external"] = [row["model"]]
    else:
        params["active"] |= {
            "models": [row["model"]],
            "train_seeds": [row["train_seed"]],
            "samplers": [row["sampler"]],
        }
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        yaml.dump(params, out)


def reproduce(key: str, force: bool = False) -> tuple[bool, list[str]]:
    """Measure one row of the ledger again, in a worktree of the revision that measured it.

    The row's own parameters are written into `params.yaml` there, so that rows from experiments and
    from edited workspaces can be measured again too. DVC restores what its cache, its run-cache or
    a remote holds, and runs the rest.

    Args:
        key: the beginning of the row's name, or its file.
        force: run all stages, whatever can be restored.

    Returns:
        Whether the value is the same, and what to tell the reader.

    Raises:
        ValueError: if there is no such row, it names no revision, or a stage fails.
        InterruptedError: after a SIGTERM or Ctrl-C.
    """
    found_rows = find_rows(key)
    row = found_rows[0]
    if row["revision"] is None:
        raise ValueError(f"{row['name']}: names no git revision to reproduce")
    configuration = Configuration(*(row[part] for part in PARTS))
    stage = configuration.evaluation
    root, commit = Path.cwd(), resolve(commit_of(row))
    said = []
    print(f"{configuration.name} at {short(row['revision'])}", flush=True)
    if configuration.external:
        print(
            "its samples are from elsewhere and cannot be drawn again from here: they are judged again",
            flush=True,
        )
    with _stopped_by_signals() as stop, _beside(root, commit, row["name"], stop) as place:
        _set_params(place / "params.yaml", row)
        link_sources(root, place)  # the row's, which need not be the commit's
        if force:  # not even work that somebody has begun
            (place / ".scoremodel").unlink()
        verify_remote(place)
        options = ["--pull"] if default_remote(place)[0] else []

        def repro(*arguments: str) -> None:
            try:
                run_dvc(["repro", *arguments], place, _say, stop=stop)
            except DvcFailedError as error:
                raise ValueError(
                    f"{row['name']}: {stage} failed at revision {row['revision']}: {error}"
                ) from None

        repro(*options, "check")
        _say(_announced(found_rows, restored(place, stage, force)))
        repro(*(["--force"] if force else options), stage)
        record = record_of(read_text(place / configuration.record), configuration.record)

        def read(path: str, _: str) -> dict[str, Any]:
            content: dict[str, Any] = read_json(place / path)
            return content

        found = inputs(stage, read_lock(place / "dvc.lock"), read)
        found["data_sha256"] = record["data_sha256"]
    row = next((r for r in found_rows if r["environment"] == record["environment"]), row)
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


def _say(line: str) -> None:
    print(line, flush=True)
