"""The rehearsal on the CPU of what is measured where there is a GPU."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from benchmarks import gpu
from scoremodel.networks.base import build_network
from scoremodel.ranks import Ranks
from tests.workspace import ROOT

Rehearse = Callable[..., tuple[int, dict[str, pd.DataFrame], str]]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rehearse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rehearse:
    """Run sections as from the command line: the exit status, each one's table, all that was printed."""
    monkeypatch.chdir(ROOT)

    def run(*sections: str) -> tuple[int, dict[str, pd.DataFrame], str]:
        folder = ["--folder", str(tmp_path), "--threads", "1"]
        status = gpu.main(["--tiny", "--device", "cpu", *folder, "--sections", *sections])
        printed = capsys.readouterr().out
        texts = printed.split("## ")[1:]
        return status, dict(zip(sections, map(_table, texts), strict=True)), printed

    return run


def _table(text: str) -> pd.DataFrame:
    """Return a Markdown table as the numbers and words in its cells."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines] or [[], []]
    return pd.DataFrame([list(map(_cell, row)) for row in rows], columns=head)


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def test_the_rehearsal(rehearse: Rehearse) -> None:
    """All but the compiler's section, whose minute is beside this."""
    sections = [name for name in gpu.SECTIONS if name != "compile"]
    status, tables, printed = rehearse(*sections)
    assert status == 0, printed
    assert "Failed" not in printed

    cpu = tables["cpu"].set_index("")
    compared = cpu[["loss", "gradient norm", "gradient", "samples"]]
    assert (compared.loc[["float32", "TF32"]] == 0).all(axis=None)  # the CPU against itself
    # Of sums of some thousand products in float32, whose digits are 6e-8.
    of_float64 = compared.loc["CPU beside float64"]
    assert of_float64[["gradient", "samples"]].between(1e-8, 1e-4).all()
    assert of_float64["gradient norm"] <= 1.01 * of_float64["gradient"]  # ||a| − |b|| ≤ |a − b|
    assert list(cpu["bits"].iloc[3:]) == ["equal"] * 3

    half = tables["bfloat16"].iloc[0]
    assert 1e-4 < half["samples apart"] < 0.05  # of bfloat16's 8 bits is 4e-3
    assert half["times faster"] == pytest.approx(
        half["float32, ms/step"] / half["bfloat16, ms/step"], rel=0.02
    )

    train = tables["train"]
    assert list(train["computes in"]) == ["float32", "bfloat16"]
    work = sum(_work(gpu.OF_8_PIXELS, (3, 8, 8)))
    assert train["GFLOP of an image"].to_numpy() == pytest.approx(work / 1e9, rel=5e-3)
    rate = train["images/s"] * train["GFLOP of an image"] / 1e3
    assert train["TFLOP/s"].to_numpy() == pytest.approx(rate, rel=0.02)
    shares = 100 * train["TFLOP/s"] / train["of matrices"]
    assert train["share, %"].to_numpy() == pytest.approx(shares, rel=0.02)

    sample = tables["sample"]
    assert list(sample["sampler"]) == ["heun", "sde_dpm_solver"] * 2
    assert sample["noise, %"].between(0, 100, inclusive="neither").all()

    processes = tables["processes"]
    assert list(processes["processes × parts"]) == ["1 × 4", "2 × 2"]
    assert processes["sha256 of the weights"].nunique() == 1

    reached = tables["reached"]
    assert list(reached["model"]) == ["fashion_ve"] * 2 + ["fashion_vp"] * 2
    assert (reached["NFE"] == 35).all()
    floors = reached["distance to held-out"] / reached["× floor"]
    assert floors.to_numpy() == pytest.approx(floors[0], rel=0.01)
    assert (reached["× floor"] > 1).all()  # after a few steps

    (kept,) = tables["checkpoints"].to_dict("records")
    assert 0 < kept["share, %"] <= 2
    assert kept["held, s"] <= kept["written after, s"] < kept["next one due after, s"]
    network = build_network(gpu.OF_8_PIXELS, (3, 8, 8), None)
    weights = sum(p.numel() for p in network.parameters())
    assert kept["MB"] == pytest.approx(
        4 * 4 * weights / 1e6, rel=0.01
    )  # two of them Adam's moments


@pytest.mark.long
def test_the_rehearsal_of_the_compiler(rehearse: Rehearse) -> None:
    status, tables, printed = rehearse("compile")
    assert status == 0, printed
    plain, compiled = tables["compile"].to_dict("records")
    assert (plain["compile"], compiled["compile"]) == ("no", "yes")
    assert compiled["first step, s"] > 3 * plain["first step, s"]
    assert compiled["loss apart"] < 1e-3


def _work(network: gpu.Network, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the operations of a call and of its derivatives, by each layer's own formula."""
    made = build_network(network, shape, None)
    calls: list[tuple[nn.Module, float]] = []

    def note(layer: nn.Module, _: Any, out: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        calls.append((layer, 2 * layer.weight[0].numel() * out.numel()))

    def attention(layer: nn.Module, given: tuple[Tensor, ...], _: Any) -> None:
        _, channels, height, width = given[0].shape
        calls.append(
            (layer, 2 * 2 * (height * width) ** 2 * channels)
        )  # q kᵀ, and its rows times v

    for layer in made.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note)
        elif type(layer).__name__ == "_Attention":
            layer.register_forward_hook(attention)
    made(torch.zeros(1, *shape), torch.zeros(1))
    firsts = made.enter, made.embedding.layers[0]  # of whose inputs nobody asks for a derivative
    call = sum(work for _, work in calls)
    back = sum(work * (1 if layer in firsts else 2) for layer, work in calls)
    return call, back


@pytest.mark.parametrize(
    ("network", "shape", "millions", "gflop"),
    [
        (gpu.OF_8_PIXELS, (3, 8, 8), None, None),
        (gpu.OF_36_M, (3, 32, 32), 36.76, 16.18),
        (gpu.OF_60_M, (3, 32, 32), 63.6, 20.5),
    ],
)
def test_the_operations_are_the_layers_own(
    network: gpu.Network, shape: tuple[int, ...], millions: float | None, gflop: float | None
) -> None:
    call, back = _work(network, shape)
    assert gpu.flop(network, shape, training=False) == call
    assert gpu.flop(network, shape, training=True) == call + back
    if millions is not None:
        made = build_network(network, shape, None)
        assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
        assert call / 1e9 == pytest.approx(gflop, rel=0.01)


def test_processes_that_do_not_exchange_fail(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranks, "total", lambda self, summand: summand)
    status, tables, printed = rehearse("processes")
    assert status == 1
    assert "**Failed**: the bytes depend on the number of processes" in printed
    assert tables["processes"]["sha256 of the weights"].nunique() == 2


def test_checkpoints_that_take_more_than_their_share_fail(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoremodel.io.checkpoint._SHARE", 0.1)
    status, _, printed = rehearse("checkpoints")
    assert status == 1  # a tenth of what is beside it
    assert re.search(r"\*\*Failed\*\*: checkpoints take 9\.\d\d % of the time, > 2 %", printed)


def test_another_computation_on_the_device_fails(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that rounds to bfloat16, and trainings whose seeds differ."""
    built, made = gpu.model, []

    def rounded(*given: Any) -> Any:
        made.append(built(*given))
        if len(made) == 3:  # after the two on the CPU
            made[-1].network.to(torch.bfloat16).float()
        return made[-1]

    seeds = iter(range(100))
    plain = gpu.train
    monkeypatch.setattr(gpu, "model", rounded)
    monkeypatch.setattr(gpu, "train", lambda a, b, c, _: plain(a, b, c, next(seeds)))
    status, _, printed = rehearse("cpu")
    assert status == 1
    for what in ("loss in float32", "gradient in float32", "samples in float32"):
        assert f"**Failed**: {what}" in printed
    assert "two trainings in TF32 differ" in printed


def test_a_section_that_breaks_is_said_and_the_others_run(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(found: gpu.Found, *_: Any, **__: Any) -> None:
        found.rows.append({"images/s": 7.0})
        raise RuntimeError("no such kernel\n  on this device")

    monkeypatch.setitem(gpu.SECTIONS, "bfloat16", ("bfloat16", breaks))
    status, tables, printed = rehearse("bfloat16", "processes")
    assert status == 1
    assert "**Failed**: RuntimeError: no such kernel on this device" in printed
    assert list(tables["bfloat16"]["images/s"]) == [7]  # what was measured before
    assert len(tables["processes"]) == 2


def test_what_is_not_here_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--device", "cpu", "--sections", "reached"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == [
        "Not measured: artifacts/data/fashion_mnist/card.json is not there, "
        "`dvc repro prepare@fashion_mnist` makes it.",
        "",
    ]
    monkeypatch.setattr(gpu, "devices", lambda: ["cpu"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2
    assert "--device: cuda is not on this machine, allowed: cpu" in capsys.readouterr().err
