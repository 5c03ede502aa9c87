"""The ledger's command line, on a real workspace with real experiments."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tasks.files.code import syntax_hash
from tasks.files.hashes import content_hash
from tasks.results.__main__ import main
from tasks.results.gather import gather
from tasks.results.ledger import read_rows
from tasks.results.rows import changes
from tasks.results.table import with_spread
from tests.workspace import ROOT, Workspace


def results(workspace: Workspace, *arguments: str, status: int = 0) -> str:
    return workspace.python("-m", "tasks.results", *arguments, status=status)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `results` without a process for each command."""

    def run(workspace: Workspace, *arguments: str) -> str:
        monkeypatch.chdir(workspace.root)
        main(arguments)
        return capsys.readouterr().out

    return run


def record(workspace: Workspace, sampler: str) -> Any:
    path = workspace.root / f"results/records/digits-vp-0-{sampler}.json"
    return json.loads(path.read_text())


def csv(text: str) -> pd.DataFrame:
    return pd.read_csv(StringIO(text), dtype={"key": str, "environment": str})


def test_changes_name_parameters_once_and_files() -> None:
    before = {
        "files": {"a.py": "1", "b.py": "1"},
        "params": {"s": {"x": {"y": 1, "z": 2}, "cmd": "c"}},
    }
    after = {
        "files": {"a.py": "2", "c.py": "1"},
        "params": {"s": {"x": {"y": 3, "z": 2}}, "t": {"x.y": 3}},
    }
    assert changes(before, after) == ["a.py", "b.py", "c.py", "x.y: 1 → 3"]
    assert changes(before, before) == []


def test_a_new_row_s_inputs_are_what_params_yaml_and_the_modules_say(finished: Workspace) -> None:
    (row,) = (
        row
        for row in read_rows(finished.root / "results/ledger").values()
        if row["configuration"] == "digits-vp-0-heun"
    )
    said, params = row["inputs"]["params"]["resolved"], finished.params()
    judged = (
        "batch_size",
        "count",
        "extractor",
        "floor_repeats",
        "margin",
        "neighbours",
        "panel",
        "sampling_seeds",
    )
    machine = {"threads", "device", "tf32", "deterministic", "seed"}
    blocks = {"datasets.digits", "models.vp", "samplers.heun"}
    assert set(said) == machine | blocks | {f"evaluation.{key}" for key in judged}
    params["evaluation"]["extractor"] = {"kind": "shipped", "name": "digits"}  # what `auto` is here
    for key in judged:
        assert said[f"evaluation.{key}"] == params["evaluation"][key]
    assert said["models.vp"]["training"]["steps"] == 6
    assert set(said["models.vp"]["network"]) == {"unet"}
    assert said["samplers.heun"] == {"kind": "heun", "steps": 3, **params["defaults"]["sampler"]}
    files = dict(row["inputs"]["files"])
    assert files.pop("data/raw/digits").endswith(".dir")
    assert "scoremodel/samplers/heun.py" in files
    assert "scoremodel/samplers/reverse_sde.py" not in files
    for path, digest in files.items():
        assert syntax_hash((finished.root / path).read_text()) == digest, path


def test_rows_of_the_old_form_stand_beside_new_ones(
    copied: Workspace, here: Callable[..., str]
) -> None:
    """Their inputs were parameters by stage, and files by MD5."""
    old = {
        path: row
        for path in (ROOT / "results/ledger").glob("*.json")
        if (row := json.loads(path.read_text()))["configuration"] == "digits-vp-0-heun"
        and "resolved" not in row["inputs"]["params"]
    }
    assert len(old) > 1
    for path in old:
        shutil.copy(path, copied.root / "results/ledger")
    rows = json.loads(here(copied, "list", "--sampler", "heun", "--format", "json"))
    assert len(rows) == len(old) + 1
    history = csv(here(copied, "history", "digits-vp-0-heun", "--format", "csv"))
    assert len(history) == len(rows)
    last = history["changed"].iloc[-1].split("; ")
    assert {"samplers.heun.steps: 18 → 3", "evaluation.count: 448 → 100"} <= set(last)
    assert "scoremodel/samplers/heun.py" in last
    assert not [line for line in last if line.startswith("seed:")]  # which is the same


@pytest.mark.slow
def test_one_sampling_seed_of_few_samples_is_said_to_be_so(copied: Workspace) -> None:
    params = copied.params()
    params["evaluation"] |= {"count": 40, "sampling_seeds": [5]}
    params["active"]["samplers"] = ["heun"]
    copied.write_params(params)
    copied.dvc("repro")
    known = record(copied, "heun")
    assert known["held_out"]["std"] is None
    assert known["warnings"] == ["40 samples do not determine the covariance of 64 features"]
    verdict = (copied.root / "results/verdict.md").read_text()
    assert "digits, all: 40 samples do not determine the covariance of 64 features." in verdict
    assert f"vp is at {known['held_out']['mean']:.4g}, real data are at" in verdict
    assert results(copied, "verdict") == ""
    assert "allowed: two different models" in results(copied, "verdict", "vp", "vp", status=2)
    assert "no record of ve, there are: vp" in results(copied, "verdict", "ve", "vp", status=2)


def test_the_ledger_is_listed_filtered_and_in_every_format(
    finished: Workspace, here: Callable[..., str]
) -> None:
    rows = csv(here(finished, "list", "--format", "csv"))
    files = sorted(
        path.stem.rsplit("-", 1)[0] for path in (finished.root / "results/ledger").glob("*.json")
    )
    assert sorted(rows["key"] + "-" + rows["environment"]) == files
    (heun,) = json.loads(here(finished, "list", "--sampler", "heun", "--format", "json"))
    known = record(finished, "heun")
    assert heun["to held-out"] == known["held_out"]["mean"]
    assert heun["KID"] == known["kid"]["mean"]
    assert "no rows" in here(finished, "list", "--model", "ve")
    head = finished.run("git", "rev-parse", "HEAD").stdout[:9]
    assert heun["revision"].startswith(head)
    for form, mark in (("table", "to held-out"), ("markdown", "| key")):
        assert mark in here(finished, "list", "--format", form)
    assert "no such configuration" in results(finished, "history", "digits-vp-0-x", status=2)
    with pytest.raises(ValueError, match="stands for several rows"):
        here(finished, "reproduce", "")


def test_the_verdict_and_the_table_are_the_records_own(finished: Workspace) -> None:
    table = pd.read_csv(finished.root / "results/table.csv").set_index("sampler")
    for sampler in ("heun", "euler_maruyama"):
        known, row = record(finished, sampler), table.loc[sampler]
        assert row["recall_mean"] == known["recall"]["mean"]
        assert row["gaussian"] == known["gaussian"]["held_out"]["mean"]
        assert row["ratio_to_floor"] == pytest.approx(
            known["held_out"]["mean"] / known["floor"]["value"], rel=1e-5
        )
    # On the front is who has no better with as few calls: 5 calls of Heun, 9 of Euler-Maruyama.
    heun, euler = table.loc["heun"], table.loc["euler_maruyama"]
    assert bool(heun["pareto"])
    assert bool(euler["pareto"]) == (euler["held_out_mean"] < heun["held_out_mean"])
    verdict = (finished.root / "results/verdict.md").read_text()
    one_model = f"vp is at {with_spread(heun['held_out_mean'], heun['held_out_std'])}, real data"
    assert one_model in verdict
    assert f"| {with_spread(heun['recall_mean'], heun['recall_std'])} " in verdict
    assert "FD∞ is too small below 20 × 64 samples, here are 100" in verdict
    page = (finished.root / "reports/index.html").read_text()
    assert re.search(r"tasks\.results reproduce [0-9a-f]{16}", page)


@pytest.mark.slow
def test_revisions_and_history_are_compared(copied: Workspace) -> None:
    copied.git("add", "-A")
    copied.git("commit", "-qm", "first")
    before = record(copied, "heun")
    params = copied.params()
    params["samplers"]["heun"]["steps"] = 4
    copied.write_params(params)
    copied.dvc("repro")
    after = record(copied, "heun")
    rows = csv(results(copied, "compare", "HEAD", "--format", "csv")).set_index("sampler")
    assert rows.loc["euler_maruyama", "shown"] == "the same"
    difference = after["held_out"]["mean"] - before["held_out"]["mean"]
    assert rows.loc["heun", "difference"] == pytest.approx(difference)
    assert rows.loc["heun", "low"] < difference < rows.loc["heun", "high"]
    history = csv(results(copied, "history", "digits-vp-0-heun", "--format", "csv"))
    assert len(history) == 2
    assert history["changed"].tolist()[1:] == ["samplers.heun.steps: 3 → 4"]
    # A record that is older than what it depends on has no pedigree.
    params["seed"] = 1
    copied.write_params(params)
    copied.dvc("repro", "evaluate@digits-vp-0-euler_maruyama")
    said = results(copied, "gather")
    assert "digits-vp-0-heun left out: dvc.lock: evaluate@digits-vp-0-heun was made before" in said
    assert "workspace: 1 rows added, 0 known" in said
    assert "is no revision and no experiment" in results(copied, "compare", "--", "-x", status=2)


@pytest.mark.slow
def test_an_experiment_reaches_the_ledger_and_a_row_is_measured_again(
    copied: Workspace, tmp_path: Path
) -> None:
    copied.git("add", "-A")
    copied.git("commit", "-qm", "first")
    before = sorted((copied.root / "results/ledger").glob("*.json"))
    copied.dvc("exp", "run", "--temp", "-n", "four", "-S", "samplers.heun.steps=4")
    said = results(copied, "gather")
    assert "four: 1 rows added, 1 known" in said
    (new,) = set((copied.root / "results/ledger").glob("*.json")) - set(before)
    row = json.loads(new.read_text())
    assert row["values"]["nfe"] == 7
    assert row["seconds"]["sample"]["seconds_per_1000"] > 0
    assert "four: 0 rows added, 2 known" in results(copied, "gather")
    assert "four" in results(copied, "compare", "HEAD", "four")

    # A remote that the row's revision does not know.
    copied.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    copied.git("commit", "-qam", "a remote")
    copied.dvc("push", "--run-cache")
    for key, force in ((new.stem[:16], []), (str(new), ["--force"])):
        again = results(copied, "reproduce", key, *force)
        plan = next(line for line in again.splitlines() if line.startswith("trains"))
        assert re.search(r"sample@digits-vp-0-heun \(about \d+ s on .*\)", plan) or not force
        assert plan.startswith(
            "trains; runs check, " if force else "trains nothing; runs evaluate@"
        )
        ran = set(re.findall(r"Running stage '(.*)'", again)) | {"check"}
        planned = set(re.findall(r"[a-z]+(?:@[\w-]+)?(?=,| \(about|$)", plan.split("runs ")[1]))
        assert ran == planned | {"check"}
        assert (
            f"the same: {row['values']['held_out']['mean']:g}, seed by seed, and all other metrics"
            in again
        )
        assert "other inputs" not in again
    assert copied.run("git", "worktree", "list").stdout.count("\n") == 1

    row["values"]["held_out"]["by_seed"][0] += 1
    row["values"]["held_out"]["mean"] += 1 / 3
    del row["checksum"]
    new.write_text(json.dumps(row | {"checksum": content_hash(row)}))
    wrong = results(copied, "reproduce", new.stem[:16], status=1)
    assert "different are: held_out" in wrong
    share = 1 / abs(row["values"]["held_out"]["mean"])
    assert f"by seed at most {share:.2%} of it" in wrong


@pytest.mark.slow
def test_a_reproduction_that_is_stopped_leaves_nothing_behind(copied: Workspace) -> None:
    copied.git("add", "-A")
    copied.git("commit", "-qm", "results")
    row = next(iter((copied.root / "results/ledger").glob("*.json")))
    command = (sys.executable, "-m", "tasks.results", "reproduce", row.name, "--force")
    process = copied.start(*command)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Running stage 'extractor"):
            break
    assert copied.git("worktree", "list").count("\n") == 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.splitlines()[-1]) == (143, f"{row.stem}: stopped")
    assert copied.git("worktree", "list").count("\n") == 1
    assert not list((copied.root / ".scoremodel/worktrees").glob("*[!k]"))
    left = [one for one in psutil.process_iter(["cwd"]) if str(copied.root) in f"{one.info['cwd']}"]
    assert not left


def test_an_experiment_that_contradicts_the_ledger_stops_no_other(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied.git("add", "-A")
    copied.git("commit", "-qm", "results")
    base = copied.git("rev-parse", "HEAD").strip()
    path = copied.root / "results/records/digits-vp-0-heun.json"
    other = record(copied, "heun")
    other["held_out"]["by_seed"][0] += 1
    path.write_text(json.dumps(other))
    copied.git("commit", "-qam", "another value")
    for name, commit in (("old", "HEAD"), ("new", base)):
        copied.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    copied.git("reset", "-q", "--hard", base)
    monkeypatch.chdir(copied.root)
    assert gather(["new"]) == (["new: 0 rows added, 2 known"], True)
    (refused, _), agreed = gather(["old"])
    assert refused.startswith("old: digits-vp-0-heun refused: ")
    assert not agreed
    lines, agreed = gather()
    assert agreed
    assert lines[0] == "workspace: 0 rows added, 2 known"
    assert f"warning: {refused}" in lines
    assert "new: 0 rows added, 2 known" in lines
