"""How a comparison grows: by what is worth most for its seconds, within its budget, and what it remembers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scoremodel.evaluation.comparison import Claim, Comparison, Side, compare
from scoremodel.evaluation.design import Costs
from tasks.results.rounds import Found, Question, Round, Size, statement, steps, total_costs
from tasks.results.verdict import Verdict


def size(trainings: int, samples: int) -> Size:
    return Size(train_seeds=tuple(range(trainings)), sampling_seeds=tuple(range(samples)))


def observed(
    trainings: int, samples: int, by_training: float, by_samples: float, claim: Claim = "methods"
) -> Comparison:
    """Return a comparison of two equal sides, whose differences vary by trainings and by samples."""
    draw = np.random.default_rng(0)
    difference = (
        by_training * draw.standard_normal((trainings, 1))
        + by_samples * draw.standard_normal((1, samples))
        + 0.01 * draw.standard_normal((trainings, samples))
    )
    seeds = tuple(range(trainings)), tuple(range(samples))
    sides = [Side(values, *seeds) for values in (difference, np.zeros_like(difference))]
    return compare(*sides, claim=claim, watched=True)


def test_it_grows_by_half_with_seeds_that_are_new() -> None:
    one = Size(train_seeds=(3, 1), sampling_seeds=(5, 0, 2))
    assert one.with_samples().sampling_seeds == (5, 0, 2, 6, 7)
    assert len(one.with_samples().with_samples().sampling_seeds) == 8
    assert one.with_trainings(2).train_seeds == (3, 1, 4, 5)
    assert str(one) == "2 × 3"
    # From 2 × 3 to 4 × 5: two trainings, and fourteen sets of samples.
    larger = one.with_samples().with_trainings(2)
    assert one.seconds_of(larger, Costs(training=10.0, samples=0.5)) == 2 * 10 + 14 * 0.5


def test_of_checkpoints_only_samples_are_drawn() -> None:
    found = observed(1, 4, 0.0, 1.0, "checkpoints")
    (step,) = steps(found, "checkpoints", size(1, 4), Costs(training=1.0, samples=3.0))
    assert (str(step.size), step.seconds) == ("1 × 6", 6.0)


def test_of_methods_it_takes_what_narrows_more_for_its_seconds() -> None:
    trained, drawn = observed(4, 4, 1.0, 0.01), observed(4, 4, 0.01, 1.0)
    cheap_samples = Costs(training=100.0, samples=0.1)
    # The spread of trainings is not narrowed by samples, however cheap they are.
    first, second = steps(trained, "methods", size(4, 4), cheap_samples)
    assert (str(first.size), first.seconds) == ("5 × 4", pytest.approx(100.4))
    assert (str(second.size), second.seconds) == ("4 × 6", pytest.approx(0.8))
    # If samples vary and cost little it is they.
    assert str(steps(drawn, "methods", size(4, 4), cheap_samples)[0].size) == "4 × 6"
    # Nor is the spread of samples by trainings, if these cost nothing.
    free_trainings = Costs(training=0.0, samples=10.0)
    assert str(steps(drawn, "methods", size(4, 4), free_trainings)[0].size) == "4 × 6"
    assert str(steps(trained, "methods", size(4, 4), free_trainings)[0].size) == "5 × 4"


def test_too_few_trainings_come_first_and_unknown_costs_are_no_hindrance() -> None:
    (step,) = steps(None, "methods", size(1, 3), Costs(training=5.0, samples=1.0))
    assert (str(step.size), step.seconds) == ("3 × 3", 2 * 5 + 6)
    assert [str(one.size) for one in steps(None, "methods", size(3, 3), None)] == ["4 × 3", "3 × 5"]
    (step,) = steps(None, "checkpoints", size(1, 1), None)
    assert (str(step.size), step.seconds) == ("1 × 3", None)


def test_what_is_known_of_a_question_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, asked = tmp_path / "state" / "one.json", {"models": ["ve", "vp"]}
    question = Question.read(path, asked)
    assert (question.rounds, question.spent) == ([], 0)
    found = Found(what="a, b", difference=0.5, low=None, high=None, error=0.1, answer="undecided")
    question.rounds.append(Round(experiment="e", size=size(1, 3), found=[found], seconds=2.25))
    question.spent = 2.5
    question.write(path)
    assert Question.read(path, asked) == question
    row = question.table().iloc[0].to_dict()
    assert (row["trainings"], row["sampling seeds"], row["difference"]) == (1, 3, 0.5)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"one\.json: damaged; delete it"):
        Question.read(path, asked)


def verdict(dataset: str, sampler: str, costs: Costs | None, *found: Comparison) -> Verdict:
    return Verdict(
        dataset=dataset,
        sampler=sampler,
        metric="FD",
        models=("ve", "vp"),
        floor=1.0,
        gaussian=2.0,
        margin=0.1,
        statements=found,
        judges=(),
        costs=costs,
    )


def test_samplers_share_a_data_set_s_trainings() -> None:
    asked = [
        verdict("a", "heun", Costs(10.0, 1.0)),
        verdict("a", "euler", Costs(10.0, 2.0)),
        verdict("b", "heun", Costs(5.0, 4.0)),
    ]
    assert total_costs(asked) == Costs(15.0, 7.0)
    assert total_costs([*asked, verdict("b", "euler", None)]) is None


def test_the_quoted_statement_is_judged_if_it_is_of_what_was_asked() -> None:
    methods, checkpoints = observed(3, 3, 1.0, 1.0), observed(3, 3, 1.0, 1.0, "checkpoints")
    one = verdict("a", "heun", None, methods, checkpoints)
    assert statement(one, "methods") is methods
    assert statement(one, "checkpoints") is checkpoints
    assert statement(verdict("a", "heun", None, checkpoints), "methods") is None
