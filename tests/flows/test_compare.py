"""A comparison goes on until it is decided or its budget is spent, and from where it was killed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import flows.compare as comparing
from scoremodel.evaluation.comparison import Claim, Side, compare
from scoremodel.evaluation.design import Costs
from tasks.results.history import Experiment
from tasks.results.verdict import JUDGED, Verdict
from tests.flows.conftest import Site, until
from tests.workspace import ROOT

COSTS = Costs(training=40.0, samples=2.0)


class Lab:
    """Experiments that are numbers drawn at random, and seconds that pass as they would.

    A model's distance is a function of the seeds, so that a larger round holds the smaller one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, difference: float) -> None:
        self.difference, self.folder = difference, folder
        self.known: dict[str, dict[str, Any]] = {}
        self.ran: list[str] = []
        self.now = 0.0
        self.fault: Callable[[], None] = lambda: None
        self.published: list[str] = []
        for name, value in {
            "_measure": self.measure,
            "_publish": lambda root, name, values, said, more: self.published.extend(said),
            "base": lambda root: {"commit": "0" * 40},
            "experiments": lambda: [Experiment(name, "", "") for name in self.known],
            "get_run_logger": lambda: logging.getLogger("compare"),
            "measured_seconds": dict,
            "named": lambda prefix, values, root: {json.dumps(one): one for one in values},
            "records_at": lambda name: self.known[name],
            "applications_at": lambda _: {},
            "verdicts": self.verdicts,
        }.items():
            monkeypatch.setattr(comparing, name, value)
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.chdir(ROOT)  # for params.yaml

    def cost(self, values: dict[str, Any]) -> float:
        j, k = len(values["active.train_seeds"]), len(values["evaluation.sampling_seeds"])
        return j * COSTS.training + j * k * COSTS.samples

    def measure(self, root: Path, said: Any, stop: Any, trials: dict[str, dict[str, Any]]) -> None:
        ((name, values),) = trials.items()
        if name in self.known:
            return
        before = max((self.cost(one) for one in self.known.values()), default=0.0)
        self.now += self.cost(values) - before + 5.0
        self.fault()
        self.known[name] = values
        self.ran.append(f"{len(values['active.train_seeds'])} × "
                        f"{len(values['evaluation.sampling_seeds'])}")  # fmt: skip

    def verdicts(self, values: dict[str, Any], *_: Any, watched: bool, **__: Any) -> list[Verdict]:
        assert watched
        seeds = values["active.train_seeds"], values["evaluation.sampling_seeds"]
        tables = [
            np.array([[mean + np.random.default_rng((model, j, k)).normal(0, 0.1)
                       for k in seeds[1]] for j in seeds[0]])
            for model, mean in enumerate((1.0 + self.difference, 1.0))
        ]  # fmt: skip
        sides = [Side(table, tuple(seeds[0]), tuple(seeds[1])) for table in tables]
        claim = "methods" if len(seeds[0]) >= 3 else "checkpoints"
        found = compare(*sides, claim=claim, margin=0.01, watched=True)  # type: ignore[arg-type]
        return [
            Verdict(
                dataset="digits",
                sampler="heun",
                metric="FD",
                models=("ve", "vp"),
                floor=0.1,
                gaussian=2.0,
                margin=0.1,
                statements=(found,),
                judges=(),
                costs=COSTS,
            )
        ]

    def ask(
        self, budget: float, train_seeds: tuple[int, ...] = (0,), of: Claim | None = None
    ) -> list[str]:
        values = {
            "active.models": ["ve", "vp"],
            "active.train_seeds": list(train_seeds),
            "evaluation.sampling_seeds": [0, 1, 2],
        }
        growing = comparing._Growing(
            self.folder, {}, threading.Event(), values, "held_out", 0.95, of
        )
        with growing.alone():
            return growing.run(budget)[1]


def test_it_ends_once_it_is_decided_and_says_so_again_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = Lab(monkeypatch, tmp_path, difference=0.6)
    (sentence, end) = lab.ask(1e6)
    assert lab.ran == ["1 × 3", "1 × 5", "1 × 8"]
    assert end == f"decided, after {len(lab.ran)} rounds and {lab.now:.0f} of 1e+06 s."
    (state,) = (tmp_path / ".scoremodel/compare").glob("*.json")
    rounds = json.loads(state.read_text())["rounds"]
    assert [one["found"][0]["answer"] for one in rounds[:-1]] == ["undecided"] * (len(rounds) - 1)
    assert rounds[-1]["found"][0]["answer"] == "worse"
    before, spent = list(lab.ran), lab.now
    assert lab.ask(1e6) == [sentence, end]
    assert (lab.ran, lab.now) == (before, spent)
    assert list(state.parent.glob("*.json")) == [state]


def test_a_spent_budget_says_what_it_would_take_and_a_larger_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = Lab(monkeypatch, tmp_path, difference=0.05)
    # 3 × 3 take 138 + 5 s; of what is left a training (46 + 5) would be too much, samples (12 + 5) not.
    sentence, end = lab.ask(165, (0, 1, 2))
    assert lab.ran == ["3 × 3", "3 × 5"]
    said = re.fullmatch(
        r"undecided: the next round, 3 × 8 trainings × sampling seeds, takes about 23 s, 5 s are left, "
        r"after 2 rounds and 160 of 165 s\.",
        end,
    )
    assert said, end
    assert "to decide with a probability of 80 % takes" in sentence
    assert lab.ask(165, (0, 1, 2))[1] == end
    assert len(lab.ran) == 2
    lab.ask(260, (0, 1, 2))
    assert len(lab.ran) > 2
    assert lab.now <= 260


def test_what_was_interrupted_counts_and_is_not_begun_from_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = Lab(monkeypatch, tmp_path / "whole", difference=0.6)
    sentence, _ = whole.ask(1e6)
    lab = Lab(monkeypatch, tmp_path / "killed", difference=0.6)

    def kill() -> None:
        if lab.known:
            raise KeyboardInterrupt

    lab.fault = kill
    with pytest.raises(KeyboardInterrupt):
        lab.ask(1e6)
    assert lab.ran == ["1 × 3"]
    lab.fault = lambda: None
    again, end = lab.ask(1e6)
    assert (again, lab.ran) == (sentence, whole.ran)
    assert f"and {lab.now:.0f} of" in end
    assert lab.now > whole.now


def test_a_question_is_about_what_its_seeds_are_enough_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert get_args(comparing.Metric) == JUDGED
    lab = Lab(monkeypatch, tmp_path, difference=0.6)
    with pytest.raises(ValueError, match="of: 'checkpoints' is not allowed with 3 training seeds"):
        lab.ask(1e6, (0, 1, 2), "checkpoints")
    # Of the methods nothing can be said before there are three trainings.
    lab.ask(1e6, (4,), "methods")
    assert lab.ran[:2] == ["1 × 3", "3 × 3"]
    assert list(lab.known.values())[1]["active.train_seeds"] == [4, 5, 6]


def test_one_at_a_time_asks_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = Lab(monkeypatch, tmp_path, difference=0.6)

    def ask_again() -> None:
        with pytest.raises(BlockingIOError, match="another run asks the same"):
            lab.ask(1e6)

    lab.fault = ask_again
    lab.ask(1e6)


def test_kept_samples_go_when_it_is_decided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = Lab(monkeypatch, tmp_path, difference=0.6)
    folder = tmp_path / ".scoremodel/state"
    made = [folder / f"samples-{name}-0123456789abcdef" for name in
            ("digits-ve-0-heun", "digits-vp-0-heun", "digits-vp-0-euler")]  # fmt: skip
    unfinished = folder / "samples-digits-ve-0-heun-fedcba9876543210"
    for one in (*made, unfinished):
        one.mkdir(parents=True)
        (one / "seed-0-0.safetensors").touch()
        if one != unfinished:
            (one / "kept").touch()
    lab.ask(1.0)
    assert all(one.exists() for one in made)
    lab.ask(1e6)
    assert [one.exists() for one in (*made, unfinished)] == [False, False, True, True]


@pytest.mark.slow
def test_a_killed_comparison_goes_on_without_repeating_what_it_has(training_site: Site) -> None:
    """A budget that is spent, a larger one whose flow is killed in its second round, and the same again."""
    site = training_site
    params = site.workspace.params()
    params["models"]["short"] = {"like": "vp", "training": {"steps": 10}}  # plainly another
    params["evaluation"]["sampling_seeds"] = [0, 1]  # of two nothing can be told at every look
    site.workspace.write_params(params)
    site.commit("a short training")

    def command(budget: str) -> list[str]:
        return ["-m", "flows.experiments", "compare", "vp", "short", "--train-seeds", "0",
                "--samplers", "heun", "--until-decided", "--budget", budget]  # fmt: skip

    said = site.python(*command("1s"))
    assert re.search(
        r"undecided: the next round, 1 × 4 trainings .* 0 s are left, after 1 rounds", said
    )
    state = site.workspace.root / ".scoremodel/state"
    old = {path: path.stat().st_mtime_ns for path in state.glob("samples-*/seed-*.safetensors")}
    assert {path.name[:7] for path in old} == {"seed-0-", "seed-1-"}

    process = subprocess.Popen(
        [sys.executable, *command("1h")],
        cwd=site.workspace.root,
        env=site.workspace.environment() | site.cluster.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: list(state.glob("samples-*/seed-2-*.safetensors")), 900)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {path: path.stat().st_mtime_ns for path in old} == old

    said = site.python(*command("1h"))
    (path,) = (site.workspace.root / ".scoremodel/compare").glob("*.json")
    rounds = json.loads(path.read_text())["rounds"]
    sizes = [len(one["size"]["sampling_seeds"]) for one in rounds]
    assert sizes == [2, 4, 6, 9, 14][: len(sizes)]
    assert len(sizes) > 1
    answers = [one["found"][0]["answer"] for one in rounds]
    assert answers[:-1] == ["undecided"] * (len(sizes) - 1)
    assert answers[-1] in ("better", "worse")
    names = site.workspace.git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()
    assert sorted(one["experiment"] for one in rounds) == sorted(
        name for name in names if name.startswith("compare-")
    )
    notes = [json.loads(note.read_text())["run"] for note in site.workspace.spied.iterdir()]
    assert sorted(run for run in notes if run.startswith("train@")) == [
        "train@mixture-short-0",
        "train@mixture-vp-0",
    ]
    assert list(state.glob("samples-*/*")) == []  # decided: what was kept is gone
    assert f"decided, after {len(sizes)} rounds" in said

    again = site.python(*command("1h"))
    assert f"decided, after {len(sizes)} rounds" in again
    assert "0 of 1 stages were run" in again
    assert json.loads(path.read_text())["rounds"] == rounds
