"""Nothing in the ledger is lost or silently changed: concurrent writers, kills, merges, edits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.files.layout import Configuration
from tasks.results.ledger import LedgerError, append, inputs, read_row, read_rows
from tests.workspace import ROOT

CONFIGURATION = Configuration("digits", "vp", 0, "heun")
LOCK: dict[str, Any] = {
    "stages": {
        "evaluate@digits-vp-0-heun": {
            "cmd": "evaluate",
            "deps": [{"path": "code.py", "md5": "0" * 32}],
            "params": {"params.yaml": {"seed": 0}},
            "outs": [{"path": "results/records/digits-vp-0-heun.json", "md5": "1" * 32}],
        }
    }
}


def record(value: float, threads: int = 2) -> dict[str, Any]:
    return {
        "data_sha256": "d" * 64,
        "count": 448,
        "metric": "FD (classifier 0123abcd)",
        "held_out": {"mean": value, "std": None, "by_seed": [value]},
        "ratio_to_floor": value,
        "nfe": 35,
        "agreement": None,
        "environment": {"sample": f"{threads} threads"},
    }


def files(ledger: Path) -> list[Path]:
    return sorted(ledger.glob("[!.]*"))


def put(ledger: Path, value: float, revision: str = "a" * 40, **more: int) -> Path:
    before = files(ledger)
    row, new = append(record(value, **more), CONFIGURATION, LOCK, ledger, revision)
    found = [path for path in files(ledger) if read_row(path) == row]
    assert new == (found[0] not in before)
    return found[0]


def test_the_same_row_is_written_once_and_another_value_names_both(tmp_path: Path) -> None:
    path = put(tmp_path, 1.5)
    before = path.read_bytes()
    assert put(tmp_path, 1.5) == path
    said = rf"{path.name}.*at revision a+ and now at b+, .*held_out \[1\.5\] then, \[1\.25\] now"
    with pytest.raises(LedgerError, match=said):
        put(tmp_path, 1.25, revision="b" * 40)
    assert path.read_bytes() == before
    assert put(tmp_path, 1.25, threads=1) != path  # another environment's stands beside it
    assert [row["values"]["nfe"] for row in read_rows(tmp_path).values()] == [35, 35]
    assert len(files(tmp_path)) == 2


def test_an_edited_row_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = put(tmp_path, 1.5)
    before = path.read_bytes()
    row = json.loads(before)
    row["values"]["held_out"]["mean"] = 0.5
    path.write_text(json.dumps(row))
    for act in (lambda: read_row(path), lambda: put(tmp_path, 1.5)):
        with pytest.raises(LedgerError, match=f"{path.name}: was edited after it was written"):
            act()
    path.write_bytes(before)
    moved = path.rename(path.with_name("0" + path.name[1:]))
    with pytest.raises(LedgerError, match=f"{moved.name}: its name is another row's"):
        read_rows(tmp_path)
    moved.rename(path)
    path.write_text('{"values": ')
    with pytest.raises(LedgerError, match=f"{path.name}: not a row of the ledger"):
        read_row(path)


WRITER = (
    "import sys; from pathlib import Path\n"
    "from tests.tasks.test_ledger import CONFIGURATION, LOCK, record\n"
    "from tasks.results.ledger import LedgerError, append\n"
    "sys.stdin.readline()\n"
    "row = record(float(sys.argv[2]))\n"
    "try: append(row, CONFIGURATION, LOCK, Path(sys.argv[1])); print('written')\n"
    "except LedgerError as error: print('refused', error)\n"
)


def test_of_concurrent_writers_one_value_stays_and_the_others_are_told(tmp_path: Path) -> None:
    values = [1.5, 1.5, 2.5, 2.5]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(value)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for value in values
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=60)[0] for writer in writers]
    (path,) = files(tmp_path)
    kept = read_row(path)["values"]["held_out"]["mean"]
    for value, line in zip(values, said, strict=True):
        assert line.startswith("written" if value == kept else "refused"), line
    assert sorted(tmp_path.glob("*.json")) == [path]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_during_the_write_leaves_no_row_and_the_next_writer_goes_on(
    tmp_path: Path, moment: str
) -> None:
    fault = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.tasks.test_ledger import put\n"
        f"os.{moment} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "put(Path(sys.argv[1]), 1.5)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", fault, str(tmp_path)], cwd=Path(__file__).parents[2], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert read_rows(tmp_path) == {}
    path = put(tmp_path, 1.5)
    assert files(tmp_path) == [path]
    assert read_row(path)["values"]["held_out"]["mean"] == 1.5


def test_two_branches_with_rows_merge(tmp_path: Path) -> None:
    """Also if both have measured the same thing, at their own revisions."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    ledger = tmp_path / "results/ledger"
    git("init", "-q", "-b", "main")
    (tmp_path / ".gitignore").write_text(".lock\n")
    common = put(ledger, 1.5)
    git("add", "-A")
    git("commit", "-qm", "one")
    for branch, threads in (("left", 3), ("right", 4)):
        git("checkout", "-qb", branch, "main")
        put(ledger, 1.0 + threads, branch, threads=threads)
        put(ledger, 9.0, branch, threads=9)  # measured on both
        git("add", "-A")
        git("commit", "-qm", branch)
    git("merge", "-q", "left", "-m", "both")
    rows = [row["values"]["held_out"]["mean"] for row in read_rows(ledger).values()]
    assert sorted(rows) == [1.5, 4.0, 5.0, 9.0]
    assert len(files(ledger)) == 5
    assert common in files(ledger)


def test_branches_with_different_values_for_one_row_are_told_after_their_merge(
    tmp_path: Path,
) -> None:
    put(tmp_path / "left", 1.0)
    put(tmp_path / "right", 2.0)
    (tmp_path / "both").mkdir()
    for path in (*files(tmp_path / "left"), *files(tmp_path / "right")):
        path.rename(tmp_path / "both" / path.name)
    with pytest.raises(LedgerError, match="with other values: held_out"):
        read_rows(tmp_path / "both")
    with pytest.raises(LedgerError, match="with other values: held_out"):
        put(tmp_path / "both", 1.0)


def test_a_lock_file_that_is_not_of_one_piece_is_no_pedigree() -> None:
    """After `dvc repro` of one target others' records may be older than what they depend on."""
    stages = {
        "train": {"cmd": "t", "outs": [{"path": "w", "md5": "1"}], "deps": []},
        "evaluate": {"cmd": "e", "deps": [{"path": "w", "md5": "1"}], "outs": []},
    }
    assert inputs("evaluate", {"stages": stages})["params"].keys() == {"evaluate", "train"}
    stages["train"]["outs"] = [{"path": "w", "md5": "2"}]
    with pytest.raises(ValueError, match=r"evaluate was made before train; run dvc repro"):
        inputs("evaluate", {"stages": stages})


RESOLVED: dict[str, dict[str, Any]] = {
    "machine": {"threads": 2, "device": "auto"},
    "datasets/digits": {"held_out": 0.5, "seed": 0, "gives": "images"},
    "extractors/digits": {"kind": "classifier", "epochs": 20, "seed": 7},
    "models/digits-vp": {"sde": {"kind": "vp"}, "training": {"steps": 9}},
    "samplers/heun_9": {"kind": "heun", "steps": 9},
    "judge/draws": {"count": 8, "sampling_seeds": [0]},
    "judge/metrics": {"count": 8, "sampling_seeds": [0], "neighbours": 5, "seed": 0},
    "code/train@digits-vp-0": {"entry": "tasks.train", "kinds": {}, "modules": {"a.py": "1"}},
    "code/evaluate@x": {
        "entry": "tasks.evaluate",
        "kinds": {},
        "modules": {"a.py": "1", "b.py": "2"},
    },
}


def lock_of(**stages: list[str]) -> dict[str, Any]:
    """Return a lock file whose stages, one after the other, depend on resolved files."""
    found: dict[str, Any] = {
        "check": {"cmd": "c", "deps": [{"path": "params.yaml", "md5": "9"}],
                  "outs": [{"path": "artifacts/resolved", "md5": "9.dir"}]},
    }  # fmt: skip
    before: list[dict[str, str]] = [{"path": "data/raw/digits", "md5": "5.dir"}]
    for number, (stage, names) in enumerate(stages.items()):
        deps = [{"path": f"artifacts/resolved/{name}.json", "md5": name} for name in names]
        outs = [{"path": f"made/{stage}", "md5": str(number)}]
        found[stage] = {"cmd": f"run {stage}", "deps": [*before, *deps], "outs": outs}
        before = outs
    return {"stages": found}


def test_a_row_s_inputs_are_the_keys_of_params_yaml_and_the_hashes_of_modules() -> None:
    names = list(RESOLVED)
    found = inputs(
        "evaluate", lock_of(train=names[:4], evaluate=names[4:]), lambda _, md5: RESOLVED[md5]
    )
    assert found["files"] == {"data/raw/digits": "5.dir", "a.py": "1", "b.py": "2"}
    assert found["params"] == {
        "evaluate": {"cmd": "run evaluate"},
        "train": {"cmd": "run train"},
        "resolved": {
            "threads": 2,
            "device": "auto",
            "seed": 0,
            "datasets.digits": {"held_out": 0.5},
            "evaluation.extractor": {"kind": "classifier", "epochs": 20, "seed": 7},
            "models.vp": {"sde": {"kind": "vp"}, "training": {"steps": 9}},
            "samplers.heun_9": {"kind": "heun", "steps": 9},
            "evaluation.count": 8,
            "evaluation.sampling_seeds": [0],
            "evaluation.neighbours": 5,
        },
    }


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("judge/metrics", {"count": 9}, r"two values of evaluation\.count; run dvc repro"),
        ("code/evaluate@x", {"modules": {"a.py": "3"}}, r"two versions of a\.py"),
    ],
)
def test_what_was_made_with_two_values_is_no_pedigree(
    name: str, other: dict[str, Any], said: str
) -> None:
    """As after a key's or a module's change, and `dvc repro` of the first stage alone."""
    names = ["judge/draws", "code/train@digits-vp-0"]
    contents = RESOLVED | {name: RESOLVED[name] | other}
    lock = lock_of(train=names, evaluate=["judge/metrics", "code/evaluate@x"])
    inputs("evaluate", lock, lambda _, md5: RESOLVED[md5])
    with pytest.raises(ValueError, match=said):
        inputs("evaluate", lock, lambda _, md5: contents[md5])


def test_a_lock_file_from_before_there_were_resolved_files_gives_the_key_that_it_gave() -> None:
    params = {"seed": 0, "samplers.heun": {"steps": 18}}
    lock = {
        "stages": {
            "check": {"cmd": "c", "deps": [{"path": "params.yaml", "md5": "1"}],
                      "outs": [{"path": "artifacts/checked", "md5": "2"}]},
            "evaluate": {"cmd": "e", "params": {"params.yaml": params},
                         "deps": [{"path": "artifacts/checked", "md5": "2"},
                                  {"path": "tasks/evaluate.py", "md5": "3"}]},
        }
    }  # fmt: skip
    assert inputs("evaluate", lock) == {
        "files": {"tasks/evaluate.py": "3"},
        "params": {"evaluate": {"cmd": "e", **params}},
    }


def test_the_project_s_own_rows_are_as_they_were_written() -> None:
    assert len(read_rows(ROOT / "results/ledger")) > 0
