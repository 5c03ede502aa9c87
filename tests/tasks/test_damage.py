"""Files that a person, a crash or a disk has damaged: a line that names them, and nothing silently wrong."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from scoremodel.data.scale import quantise
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.extractors.base import Extractor, load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import Classifier
from scoremodel.evaluation.extractors.identity import Identity
from scoremodel.evaluation.extractors.shipped import SHA256, shipped_file
from scoremodel.evaluation.scores import Scores
from scoremodel.io.checkpoint import Checkpoints, Chunks
from scoremodel.io.denoisers import load, save
from scoremodel.io.files import DamagedError, write_text
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.processes.vp import VP
from tasks.files import extraction
from tasks.files.arrays import read_arrays, read_card, read_rows, write_arrays, write_rows
from tasks.files.documents import read_table as read_csv
from tasks.files.graph import entries, stage_graph
from tasks.files.hashes import content_hash
from tasks.files.layout import Configuration
from tasks.files.lock import read_lock
from tasks.files.resolved import resolved
from tasks.files.stage import run
from tasks.files.state import stop_on_signals
from tasks.files.timing import read_timing
from tasks.results.history import records_at
from tasks.results.ledger import read_row
from tasks.results.records import read_record
from tasks.results.scoring import spreads
from tasks.results.shown import picture_address
from tasks.results.table import read_table
from tests.tasks.test_ledger import put
from tests.workspace import ROOT

DAMAGES = 2000

CARD: dict[str, Any] = {
    "name": "a",
    "shape": [1, 4, 4],
    "count": {"train": 20, "held_out": 10},
    "levels": 17,
    "mean": [0.25],
    "std": 0.5,
    "class_counts": {"0": 10, "1": 10},
    "mixture": None,
    "sha256": "",
}
LOCK = """schema: '2.0'
stages:
  check:
    cmd: exec python -m tasks.check
    deps:
    - path: params.yaml
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 12
    outs:
    - path: artifacts/resolved
      hash: md5
      md5: fedcba9876543210fedcba9876543210.dir
      size: 3
"""


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser({"kind": "mlp", "width": 8, "depth": 1}, VP(), (2,), [0.0, 0.5], 1.0).eval()


def classifier() -> Classifier:
    torch.manual_seed(0)
    made = Classifier((1, 8, 8), 17, 3, width=4, channels=2)
    made.seen = np.arange(5)
    return made


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        name: (value.dtype, value.shape, value.reshape(-1).view(torch.uint8).tolist())
        for name, value in tensors.items()
    }


def of_model(path: Path) -> Any:
    model = load(path, ema_half_life=3)
    return bits(model.state_dict()), model.config(), model.info, model.ema_half_life


def of_extractor(path: Path) -> Any:
    found = load_extractor(path)
    return bits(found.state_dict()), found.config, found.seen.tolist()


def of_checkpoint(path: Path) -> Any:
    said: list[str] = []
    found = Checkpoints(path.parent, warn=said.append).latest()
    if found is None:
        (line,) = said
        raise DamagedError(*line.split(": damaged (", 1))
    return found[0], bits(found[1]), found[2]


def of_chunk(path: Path) -> Any:
    said: list[str] = []
    made = {"x": torch.full((3,), 7.0)}
    found = bits(Chunks(path.parent, warn=said.append).get(path.stem, lambda: made))
    if said:
        raise DamagedError(*said[0].split(": damaged (", 1))
    return found


def of_arrays(path: Path) -> Any:
    arrays, info = read_arrays(path)
    return {name: (one.dtype, one.shape, one.tobytes()) for name, one in arrays.items()}, info


def of_rows(path: Path) -> Any:
    arrays = read_rows(path.parent, read_card(path.parent / "card.json"))
    return {name: (one.dtype, one.shape, one.tobytes()) for name, one in arrays.items()}


def make_rows(path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 17, (30, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(30) % 2
    train, held_out = np.arange(20), np.arange(20, 30)
    splits = {"train": (x, train), "held_out": (x, held_out)}
    splits |= {"train_labels": (labels, train), "held_out_labels": (labels, held_out)}
    write_text(
        path.parent / "card.json", json.dumps(CARD | {"sha256": write_rows(path.parent, splits)})
    )


def averages() -> dict[float, Denoiser]:
    return {3.0: denoiser(), 5.0: denoiser()}


def make_checkpoint(path: Path) -> None:
    with Checkpoints(path.parent) as checkpoints:
        tensors = {"w": torch.randn(4, 3), "n": torch.tensor(3), "h": torch.ones(2).bfloat16()}
        checkpoints.save(3, tensors, {"rate": 0.1})


def make_chunk(path: Path) -> None:
    with Chunks(path.parent) as chunks:
        chunks.get(path.stem, lambda: {"x": torch.randn(5)})


def make_arrays(path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    write_arrays(path, {"seed_0": rows, "none": rows[:0]}, {"nfe": 3})


def copied(pattern: str) -> Callable[[Path], None]:
    return lambda path: shutil.copyfile(sorted(ROOT.glob(pattern))[0], path) and None


def make_row(path: Path) -> None:
    made = put(path.parent, 1.5)
    (path.parent / ".lock").unlink()
    made.rename(path.parent / made.name)


KINDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], Any], bool]] = {
    "model": ("m.safetensors", lambda p: save(averages(), p, {"a": 1}), of_model, True),
    "extractor": ("e.safetensors", lambda p: save_extractor(classifier(), p), of_extractor, True),
    "checkpoint": ("step-0000000003.safetensors", make_checkpoint, of_checkpoint, True),
    "chunk": ("seed-0.safetensors", make_chunk, of_chunk, True),
    "npz": ("a.npz", make_arrays, of_arrays, True),
    "npy": ("train.npy", make_rows, of_rows, True),
    "labels": ("held_out_labels.npy", make_rows, of_rows, True),
    "card": ("card.json", lambda p: write_text(p, json.dumps(CARD, indent=2)), read_card, False),
    "record": ("r.json", copied("results/records/*.json"), read_record, False),
    "table": ("t.csv", copied("results/table.csv"), read_table, False),
    "row": ("*.json", make_row, read_row, True),
    "lock": ("dvc.lock", lambda p: write_text(p, LOCK), read_lock, False),
}
"""A file's name, what writes it, what reads it, and whether a hash says that its content is the same."""


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """Return a content with one damage: bits, a block, an end, or all of it."""
    found = bytearray(content)
    at = int(draw.integers(len(content)))
    match int(draw.integers(10)):
        case 0:
            return b""
        case 1:
            return content[:at]
        case 2:
            found[at : at + 64] = bytes(len(found[at : at + 64]))
        case 3:
            found[at : at + 16] = draw.bytes(len(found[at : at + 16]))
        case 4:
            return content + draw.bytes(int(draw.integers(1, 40)))
        case 5:
            at = int(draw.integers(min(len(content), 200)))  # of the header
            found[at] ^= 1 << int(draw.integers(8))
        case _:
            found[at] ^= 1 << int(draw.integers(8))
    return bytes(found)


def test_no_damaged_byte_gets_by(tmp_path: Path) -> None:
    """Each load of a damaged file ends with a line of its own, or gives what was written."""
    draw = np.random.default_rng(0)
    refused = dict.fromkeys(KINDS, 0)
    wrong = dict.fromkeys(KINDS, 0)
    each = -(-DAMAGES // len(KINDS))
    for kind, (name, make, read, hashed) in KINDS.items():
        folder = tmp_path / kind
        folder.mkdir()
        make(folder / name)
        (path,) = [one for one in folder.glob(name) if not one.name.startswith(".")]
        content = path.read_bytes()
        whole = read(path)
        for _ in range(each):
            path.write_bytes(damaged(content, draw))
            try:
                found = read(path)
            except ValueError as error:
                line = str(error)
                assert str(path.parent) in line, line
                assert "\n" not in line, line
                assert len(line) < 500, line
                refused[kind] += 1
            else:
                wrong[kind] += hashed and bool(found != whole)
    assert wrong == dict.fromkeys(KINDS, 0)
    assert all(count > each / 4 for count in refused.values()), refused


def header(content: Any, data: bytes = b"\0" * 8) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, first: int, last: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [2], "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        header(b"not JSON"),
        header(b"\xff\xfe{}"),
        header(b"[" * 100_000),
        header([]),
        header({"a": entry("F32", 0, 8), "b": entry("F32", 0, 8)}),
        header({"a": entry("F32", 0, 4)}),
        header({"a": entry("F99", 0, 8)}),
        header({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}),
        header({"a": entry("F32", 0, 8)}),
        header({"a": entry("F32", 0, 8), "__metadata__": {"scoremodel": "no JSON"}}),
        header({"a": entry("F32", 0, 8), "__metadata__": {"scoremodel": "[1]"}}),
        header({"a": entry("F32", 0, 8), "__metadata__": {"scoremodel": '{"config": {}}'}}),
    ],
)
def test_a_file_that_is_no_model_s_is_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    for read in (load, load_extractor, read_weights):
        with pytest.raises(DamagedError, match=r"m\.safetensors: damaged \([^\n]*\); [^\n]*$"):
            read(path)


def test_a_model_is_no_extractor_and_unfinished_work_neither(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for content in (None, [], {"chunk": None}, {"config": {}}):
        write_weights(path, {}, content)
        with pytest.raises(ValueError, match=r"m\.safetensors: holds no denoiser"):
            load(path)
        with pytest.raises(ValueError, match=r"m\.safetensors: holds no extractor"):
            load_extractor(path)
    said: list[str] = []
    save_extractor(Identity(), tmp_path / "state" / "step-0000000001.safetensors")
    assert Checkpoints(tmp_path / "state", warn=said.append).latest() is None
    assert "damaged (no checkpoint)" in said[0]


def test_the_shipped_extractors_have_a_hash_and_are_what_they_were() -> None:
    for name in SHA256:
        stem, number = name.removesuffix(".safetensors").rsplit("_", 1)
        assert load_extractor(shipped_file(stem, int(number))).kind == "classifier"


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "another": b'{"mean": 1}',
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 1_200,
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS.keys())
def test_texts_that_are_something_else_are_refused_in_a_line(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("results/records", ".scoremodel/timings", "artifacts/resolved"):
        (tmp_path / folder).mkdir(parents=True)
    paths = {
        "card.json": read_card,
        "results/records/r.json": lambda path: (read_record(path), records_at("workspace")),
        ".scoremodel/timings/0.json": lambda _: read_timing("0"),
        "0.json": read_row,
        "dvc.lock": lambda path: (read_lock(path), entries(tmp_path, ("a",))),
        "table.csv": read_table,
        "curves.csv": lambda path: read_csv(path, ("step", "loss")),
    }
    if content != TEXTS["another"]:
        paths["artifacts/resolved/a.json"] = lambda _: resolved("a")
    for name, read in paths.items():
        Path(name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{name}[^\n]*(damaged|not a row)[^\n]*; [^\n]+$"):
            read(Path(name))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(DamagedError, match=r"card\.json: damaged \(no regular file\)"):
        read_card(tmp_path / "card.json")


def test_a_stage_ends_with_the_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(CARD | {"std": "wide " * 100}))

    with pytest.raises(SystemExit) as ended:
        run(lambda _: print(read_card(path)))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: damaged (std: 'wide wide")
    assert line.endswith(
        "… is not allowed, allowed: a number); remove it and run dvc repro, or restore it from a copy"
    )
    assert len(line) < 200 + len(str(path))


def test_a_record_that_holds_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    copied("results/records/*.json")(path)
    record = read_record(path)
    record["held_out"]["by_seed"][1] = float("nan")
    path.write_text(json.dumps(record))
    with pytest.raises(
        DamagedError, match=r"held_out\.by_seed\.1: nan is not allowed, allowed: a finite number"
    ):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": None}, "values: None is not allowed, allowed: a block of keys"),
        ({"configuration": "digits"}, "configuration: 'digits' is not allowed"),
        (
            {"seconds": {"sample": [1]}},
            r"seconds\.sample: \[1\] is not allowed, allowed: a block of keys",
        ),
        (
            {"environment": ["cpu"]},
            r"environment: \['cpu'\] is not allowed, allowed: a block of keys",
        ),
    ],
)
def test_a_row_of_another_shape_is_no_row_though_its_checksum_is_right(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = put(tmp_path, 1.5)
    row = json.loads(path.read_text()) | change
    del row["checksum"]
    path.write_text(json.dumps(row | {"checksum": content_hash(row)}))
    with pytest.raises(ValueError, match=rf"{path.name}: not a row of the ledger \({said}"):
        read_row(path)


def test_merges_that_were_not_ended_are_named(tmp_path: Path) -> None:
    conflict = LOCK.replace("      size: 12\n", "<<<<<<< HEAD\n      size: 1\n=======\n>>>>>>> b\n")
    (tmp_path / "dvc.lock").write_text(conflict)
    said = r"dvc\.lock: damaged \(a merge has left conflict marks in it\); take one side"
    with pytest.raises(DamagedError, match=said):
        entries(tmp_path, ("check",))


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
def test_dvc_s_own_files_are_named_when_a_graph_is_read(name: str, tmp_path: Path) -> None:
    from dvc.repo import Repo

    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo\n    outs: [b]\n")
    assert [node.name for node in stage_graph(tmp_path)] == ["a"]
    for text in ("<<<<<<< HEAD\nstages: {}\n", "stages: [1\n", "stages: 3\n"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: damaged \([^\n]*\); [^\n]*$"):
            stage_graph(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [1, 8, 8]}, r"train\.npy: damaged \(shape \(20, 1, 4, 4\), and by the card"),
        ({"count": {"train": 20, "held_out": 9}}, r"held_out\.npy: damaged \(shape"),
        ({"class_counts": None}, "its content is not what the card was made of"),
        ({"sha256": "0" * 64}, "its content is not what the card was made of"),
    ],
)
def test_arrays_are_those_that_the_card_describes(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    make_rows(tmp_path / "train.npy")
    card = read_card(tmp_path / "card.json")
    assert len(read_rows(tmp_path, card)) == 4
    with pytest.raises(DamagedError, match=said):
        read_rows(tmp_path, card | change)
    (tmp_path / "train_labels.npy").unlink()
    with pytest.raises(DamagedError, match=r"lacks train_labels\.npy"):
        read_rows(tmp_path, card)


def test_arrays_with_objects_and_pictures_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, info=np.array({"a": 1}, dtype=object))
    with pytest.raises(DamagedError, match=r"a\.npz: damaged"):
        read_arrays(path)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(DamagedError, match=r"a\.npz: damaged"):
        read_arrays(path)
    picture = tmp_path / "p.png"
    Image.new("L", (40, 40)).save(picture)
    assert picture_address(picture).startswith("data:image/webp")
    for content in (b"", picture.read_bytes()[:50], b"GIF89a"):
        picture.write_bytes(content)
        with pytest.raises(DamagedError, match=r"p\.png: damaged \(no whole picture\)"):
            picture_address(picture)


def test_samples_that_are_not_finite_have_no_grey_level() -> None:
    """Not black, which NaN would be by way of integers."""
    x = torch.zeros(5, 1, 2, 2)
    x[1, 0, 0, 1], x[4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 5 samples hold a value that is not finite"):
        quantise(x, 17)
    assert quantise(x[:1], 17).unique().tolist() == [8]


def test_scores_that_are_not_finite_are_counted() -> None:
    scores = [Scores({"kid": value}, False, {}) for value in (0.5, math.nan, math.inf)]
    with pytest.raises(FloatingPointError, match="kid: is not finite for 2 of 3 sets"):
        spreads(scores)


def test_features_that_are_not_finite_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Extractor):
        kind = "broken"

        def features(self, data: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
            found = data.clone()
            found[1:3, 0] = torch.inf
            return found

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extraction.Machine, "read", lambda: None)
    monkeypatch.setattr(extraction, "set_up_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(extraction, "environment", lambda *_: "here")
    monkeypatch.setattr(extraction, "code_of", lambda _: {})
    monkeypatch.setattr(extraction, "state_folder", lambda *_: tmp_path / "state")
    monkeypatch.setattr(extraction, "load_extractor", lambda *_: Broken({}))
    files = Configuration("plane")
    write_text(extraction.extractor_file(files), "")
    arrays = {"seed_0": np.zeros((7, 2), np.float32)}
    with (
        pytest.raises(FloatingPointError, match=r"judge\.safetensors: .* of 2 of 7 samples"),
        extraction.extracted("samples", files, arrays, {}),
    ):
        pass
    assert list((tmp_path / "state").glob("*.safetensors")) == []


def writers(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what writes files of 100 kB or more, by the file's name."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((200, 100)).astype(np.float32)
    large = Denoiser({"kind": "mlp", "width": 128, "depth": 2}, VP(), (2,), [0.0, 0.0], 1.0)
    table = pd.DataFrame(rows)

    def chunk() -> None:
        with Chunks(folder / "state") as chunks:
            chunks.get("seed-0", lambda: {"x": torch.from_numpy(rows)})

    def curves() -> None:
        from scoremodel.io.files import atomic_path

        with atomic_path(folder / "c.csv") as temporary:
            table.to_csv(temporary)

    return {
        "m.safetensors": lambda: save(large, folder / "m.safetensors"),
        "state/seed-0.safetensors": chunk,
        "a.npz": lambda: write_arrays(folder / "a.npz", {"x": rows}),
        "train.npy": lambda: write_rows(folder, {"train": (rows, np.arange(200))}),
        "r.json": lambda: write_text(folder / "r.json", json.dumps(rows.tolist())),
        "c.csv": curves,
    }


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 20,000 bytes: writing ends in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_with_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, write in writers(tmp_path).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        before = sorted(one for one in path.parent.iterdir() if one.suffix == ".safetensors")
        with full_disk(), pytest.raises(OSError, match="File too large") as error:
            write()
        assert error.value.filename == str(path)
        assert "\n" not in str(error.value)
        with monkeypatch.context() as patched:

            def none_left(*_: object, **__: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(os, "fsync", none_left)
            with pytest.raises(OSError, match="No space left") as error:
                write()
            assert error.value.filename == str(path)
        assert path.read_text() == "old"
        assert (
            sorted(one for one in path.parent.iterdir() if one.suffix == ".safetensors") == before
        )
        write()
        assert path.stat().st_size > 50_000


def test_a_second_interrupt_while_saving_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends in a line, and the file is the old one."""
    usual = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGINT))
    save_it = writers(tmp_path)["m.safetensors"]
    (tmp_path / "m.safetensors").write_text("old")

    def work(_: object) -> None:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            save_it()

    try:
        with pytest.raises(SystemExit) as ended:
            run(work)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "error: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert (tmp_path / "m.safetensors").read_text() == "old"
