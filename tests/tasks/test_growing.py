"""A comparison goes on until it is decided or its budget is spent, and from where it was killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from scoremodel.evaluation.comparison import Claim, Side, compare
from scoremodel.evaluation.design import Costs
from tasks.params.overrides import overridden
from tasks.results import growing
from tasks.results.history import Experiment
from tasks.results.trials import Trial
from tasks.results.verdict import JUDGED, Metric, Verdict
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
        self.said: list[str] = []
        for name, value in {
            "base": lambda root: "0" * 40,
            "experiments": lambda: [Experiment(name, "", "") for name in self.known],
            "measured_seconds": dict,
            "overridden": lambda path, values: overridden(ROOT / "params.yaml", values),
            "trials": lambda root, prefix, values: [
                Trial(json.dumps(one), "", one) for one in values
            ],
            "records_at": lambda name: self.known[name],
            "applications_at": lambda _: {},
            "verdicts": self.verdicts,
        }.items():
            monkeypatch.setattr(growing, name, value)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def cost(self, values: dict[str, Any]) -> float:
        j, k = len(values["active.train_seeds"]), len(values["evaluation.sampling_seeds"])
        return j * COSTS.training + j * k * COSTS.samples

    def measure(self, trial: Trial) -> None:
        name, values = trial.name, trial.values
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
        comparison = growing.Growing(
            self.folder, values, "held_out", 0.95, of, self.measure, self.said.append
        )
        with comparison.alone():
            return comparison.run(budget).sentences


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
    assert get_args(Metric) == JUDGED
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
