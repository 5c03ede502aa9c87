"""Read the ledger, compare results, and measure one again: `python -m tasks.results --help`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from scoremodel.evaluation.comparison import compare
from scoremodel.io.files import atomic_path
from tasks.files.hashes import file_hash
from tasks.results.history import (
    WORKSPACE,
    commit_time,
    experiments,
    git,
    lock_at,
    records_at,
    resolve,
)
from tasks.files.layout import LEDGER, Configuration
from tasks.results.ledger import LedgerError, append, inputs, read_lock, read_rows
from tasks.params.load import load_params
from tasks.files.stage import run
from tasks.results.verdict import JUDGED, verdicts

__all__ = ["changes", "compare_revisions", "gather", "ledger_table", "main", "reproduce"]

_PARTS = ("dataset", "model", "train_seed", "sampler")


def _rows() -> list[dict[str, Any]]:
    """Return every row of the ledger, with its name and its configuration's parts."""
    found = []
    for name, row in read_rows().items():
        dataset, model, train_seed, sampler = row["configuration"].split("-")
        parts = {"dataset": dataset, "model": model, "train_seed": int(train_seed)}
        found.append({"name": name, **parts, "sampler": sampler, **row})
    return found


def _when(row: dict[str, Any]) -> str:
    """Return when the row was recorded; of rows that do not say so, when their commit was made."""
    return str(row.get("recorded") or commit_time(_commit(row)) or "")


def ledger_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the ledger's rows as a table; what an old row did not measure is empty."""

    def metric(row: dict[str, Any], name: str, part: str) -> float | None:
        value = row["values"].get(name)
        return None if value is None else value[part]

    return pd.DataFrame(
        [
            {
                "key": row["name"].split("-")[0],
                "environment": row["name"].split("-")[1],
                **{part: row[part] for part in _PARTS},
                "metric": row["metric"],
                "NFE": row["values"]["nfe"],
                "to held-out": metric(row, "held_out", "mean"),
                "std": metric(row, "held_out", "std"),
                "× floor": row["values"]["ratio_to_floor"],
                "FD∞": metric(row, "infinity", "mean"),
                "KID": metric(row, "kid", "mean"),
                "revision": None if row["revision"] is None else _short(row["revision"]),
                "recorded": _when(row),
                "device": (row["seconds"].get("sample") or {}).get("device"),
            }
            for row in rows
        ]
    )


def _commit(row: dict[str, Any]) -> str:
    return str(row["revision"]).removesuffix("+")


def _short(revision: str) -> str:
    return revision[:9] + ("+" if revision.endswith("+") else "")


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return which inputs of two rows differ: "key: old → new" for parameters, paths for files.

    Args:
        before: the older row's inputs, as `tasks.results.ledger.inputs` returns them.
        after: the newer row's.

    Returns:
        One text for each difference, sorted; a parameter of several stages is named once.
    """

    def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(values, dict):
            for key, value in values.items():
                yield from flat(value, f"{name}.{key}" if name else key)
        else:
            yield name, values

    def params(row: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for stage in row["params"].values()
            for key, value in flat({k: v for k, v in stage.items() if k != "cmd"})
        }

    old, new = params(before), params(after)
    found = {
        f"{key}: {old.get(key, '—')} → {new.get(key, '—')}"
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    files = before["files"].keys() | after["files"].keys()
    found |= {path for path in files if before["files"].get(path) != after["files"].get(path)}
    return sorted(found)


def compare_revisions(first: str, second: str) -> pd.DataFrame:
    """Return what two revisions, experiments or the workspace scored, one row a configuration.

    Args:
        first: a revision, an experiment or "workspace".
        second: another one.

    Returns:
        Distances to held-out, second − first with its 95 % interval over sampling seeds, and what is
        shown of the second: better, worse, no difference shown, or the same.

    Raises:
        ValueError: if one of them is unknown or has no records.
    """
    sides = []
    for name in (first, second):
        here = {tuple(record[part] for part in _PARTS): record for record in records_at(name)}
        sides.append(here)
    rows = []
    for parts in dict.fromkeys([*sides[0], *sides[1]]):
        row: dict[str, Any] = dict(zip(_PARTS, parts, strict=True))
        a, b = (side.get(parts) for side in sides)
        row[first] = a["held_out"]["mean"] if a else None
        row[second] = b["held_out"]["mean"] if b else None
        if a is None or b is None:
            row["shown"] = f"only in {first if a else second}"
        elif any(a[key] != b[key] for key in ("metric", "count", "data_sha256")):
            row["shown"] = "not comparable: other data, extractor or number of samples"
        elif a["held_out"]["by_seed"] == b["held_out"]["by_seed"]:
            row |= {"difference": 0.0, "shown": "the same"}
        else:
            row["difference"] = b["held_out"]["mean"] - a["held_out"]["mean"]
            try:
                found = compare([b["held_out"]["by_seed"]], [a["held_out"]["by_seed"]])
            except ValueError:
                row["shown"] = "no verdict: one sampling seed"
            else:
                row |= {"low": found.low, "high": found.high, "shown": found.verdict}
        rows.append(row)
    return pd.DataFrame(rows)


def gather() -> tuple[list[str], bool]:
    """Bring the workspace's and every experiment's records into the ledger.

    Returns:
        One line for each: how many rows were added, or why a record was left out; and whether no row
        contradicted the ledger.
    """
    lines, agreed = [], True
    sources: list[tuple[str, str, str | None]] = [(WORKSPACE, WORKSPACE, None)]
    # An experiment's own commit is not in a clone; the one that it began from is, and the row has
    # the parameters by which they differ.
    sources += [(one.name, one.commit, f"{one.baseline}+") for one in experiments()]
    for name, commit, revision in sources:
        try:
            records, lock = records_at(commit), lock_at(commit)
        except (ValueError, OSError) as error:
            lines.append(f"{name}: nothing, {error}")
            continue
        added = known = 0
        for record in records:
            configuration = Configuration(*(record[part] for part in _PARTS))
            try:
                if commit == WORKSPACE:
                    _require_locked(configuration, lock)
                _, new = append(record, configuration, lock, revision=revision)
            except LedgerError as error:
                lines.append(f"{name}: {configuration.name} refused: {error}")
                agreed = False
            except ValueError as error:
                lines.append(f"{name}: {configuration.name} left out: {error}")
            else:
                added, known = added + new, known + (not new)
        lines.append(f"{name}: {added} rows added, {known} known")
    return lines, agreed


def _require_locked(configuration: Configuration, lock: dict[str, Any]) -> None:
    outs = lock["stages"].get(f"evaluate@{configuration.name}", {}).get("outs", [])
    locked = {out["path"]: out["md5"] for out in outs}
    if locked.get(str(configuration.record)) != file_hash(configuration.record):
        raise ValueError("dvc.lock has another record; run dvc repro")


def _find(key: str) -> list[dict[str, Any]]:
    """Return the rows, of all environments, of the one key that begins with `key`."""
    found = [row for row in _rows() if row["name"].startswith(key)]
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
            if dotted == "cmd":
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
    configuration = Configuration(*(row[part] for part in _PARTS))
    stage = f"evaluate@{configuration.name}"
    said = []
    with _worktree(resolve(_commit(row))) as place:
        _set_params(place / "params.yaml", row)
        options = ["--force"] if force else ["--pull"] if _has_remote() else []
        command = [sys.executable, "-m", "dvc", "repro", *options, stage]
        environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
        here = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join([here, environment.get("PATH", "")])
        print(f"{configuration.name} at {_short(row['revision'])}", flush=True)
        if subprocess.run(command, cwd=place, env=environment, check=False).returncode:
            raise ValueError(f"{row['name']}: {stage} failed at revision {row['revision']}")
        record = json.loads((place / configuration.record).read_text(encoding="utf-8"))
        found = inputs(stage, read_lock(place / "dvc.lock"))
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


def _show(rows: pd.DataFrame, form: str) -> None:
    if form == "json":
        print(rows.to_json(orient="records", force_ascii=False, indent=1))
    elif form == "csv":
        print(rows.to_csv(index=False), end="")
    elif form == "markdown":
        print(rows.to_markdown(index=False, floatfmt=".4g"))
    elif rows.empty:
        print("no rows")
    else:
        print(rows.to_string(index=False, na_rep="—", float_format=lambda value: f"{value:.4g}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--format", choices=("table", "csv", "json", "markdown"), default="table")

    listing = commands.add_parser("list", parents=[shown], help="the ledger's rows")
    for part in _PARTS:
        listing.add_argument(f"--{part.replace('_', '-')}")
    listing.add_argument("--environment", help="the fingerprint's beginning")

    both = commands.add_parser(
        "compare", parents=[shown], help="two revisions or experiments, or one with the workspace"
    )
    both.add_argument("first")
    both.add_argument("second", nargs="?", default=WORKSPACE)

    verdict = commands.add_parser(
        "verdict", help="VE with VP, or any two models, in a sentence each"
    )
    verdict.add_argument("models", nargs="*", help="two models; all pairs by default")
    verdict.add_argument("--at", default=WORKSPACE, help="a revision or an experiment")
    verdict.add_argument("--metric", choices=JUDGED, default="held_out")
    verdict.add_argument("--level", type=float, default=0.95)

    history = commands.add_parser(
        "history", parents=[shown], help="one configuration's rows, and what changed between them"
    )
    history.add_argument("configuration", help="such as digits-ve-0-heun")

    commands.add_parser(
        "gather", help="bring experiments' and the workspace's records into the ledger"
    )

    again = commands.add_parser(
        "reproduce", help="measure a row again at the revision that made it"
    )
    again.add_argument("key", help="the beginning of a row's key")
    again.add_argument("--force", action="store_true", help="run every stage, restore nothing")
    return parser


def _history(configuration: str) -> pd.DataFrame:
    rows = [row for row in _rows() if row["configuration"] == configuration]
    if not rows:
        names = ", ".join(sorted({row["configuration"] for row in _rows()}))
        raise ValueError(f"{configuration}: no such configuration in {LEDGER}, there are: {names}")
    rows.sort(key=lambda row: (_when(row), row["name"]))
    table = ledger_table(rows).drop(columns=[*_PARTS, "metric"])
    table["changed"] = [
        ""
        if index == 0
        else "; ".join(changes(rows[index - 1]["inputs"], row["inputs"])) or "nothing"
        for index, row in enumerate(rows)
    ]
    return table


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "list":
            rows = [
                row
                for row in _rows()
                if all(getattr(given, part) in (None, str(row[part])) for part in _PARTS)
                and row["name"].split("-")[1].startswith(given.environment or "")
            ]
            _show(ledger_table(rows), given.format)
        case "compare":
            _show(compare_revisions(given.first, given.second), given.format)
        case "verdict":
            if len(set(given.models)) not in (0, 2) or not 0 < given.level < 1:
                raise ValueError(
                    "verdict: allowed: two different models or none, a level in (0, 1)"
                )
            records = records_at(given.at)
            known = {record["model"] for record in records}
            if missing := set(given.models) - known:
                raise ValueError(
                    f"verdict: no record of {', '.join(sorted(missing))}, there are: "
                    f"{', '.join(sorted(known))}"
                )
            chosen = [r for r in records if not given.models or r["model"] in given.models]
            chosen.sort(key=lambda r: given.models.index(r["model"]) if given.models else 0)
            for verdict in verdicts(chosen, given.metric, given.level):
                print(verdict.sentence)
        case "history":
            _show(_history(given.configuration), given.format)
        case "gather":
            lines, agreed = gather()
            print("\n".join(lines))
            if not agreed:
                raise SystemExit(1)
        case "reproduce":
            same, said = reproduce(given.key, given.force)
            print("\n".join(said))
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    run(main)
