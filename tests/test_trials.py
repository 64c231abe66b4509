"""Trials are judged over seeds: paired by launch, and a goal that some seeds missed has no mean time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from matrix import trials
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.findings import findings_of
from matrix.number import reference_of
from matrix.profile import Trial
from matrix.report.trials import figure, table
from matrix.trust import judge
from matrix.verdict import Finding
from tests.making import evidence as made
from tests.making import ledger_of, logits, rules

RAW = Cell(suite="training_quality", workload="intent", variant="raw_torch", batch=16, length=24, examples=160)
TRAINER = RAW.model_copy(update={"variant": "hf_trainer"})
BREWED = RAW.model_copy(update={"variant": "textbrewer_features"})
LABELS = np.zeros(100, dtype=np.int64)


def answers(right: int) -> npt.NDArray[np.float32]:
    """Logits of 100 examples of class 0, so many of them right."""
    return logits([0] * right + [1] * (100 - right))


def evidence(right: dict[Cell, list[int]], facts: dict[tuple[Cell, int], dict[str, float]] | None = None) -> Evidence:
    """Trials of one setup of 2 s and two blocks of 4 s; how many of 100 each launch has right."""
    one = made(samples={cell: [[2.0, 4.0, 4.0]] * len(counts) for cell, counts in right.items()})
    arrays, measured = {"labels": LABELS}, dict(one.measured)
    for cell, counts in right.items():
        for launch, count in enumerate(counts, start=1):
            arrays[f"{cell.variant}{launch}"] = answers(count)
            update = {"outputs": f"{cell.variant}{launch}", "labels": "labels"}
            noted = {"facts": (facts or {}).get((cell, launch), {})}
            found = measured[cell.id, launch]
            measured[cell.id, launch] = replace(found, evidence=found.evidence.model_copy(update=update | noted))
    return replace(one, measured=measured, arrays=arrays)


def by_metric(one: Evidence, cell: Cell) -> dict[str, Finding]:
    """A cell's findings."""
    return {found.metric: found for found in findings_of(one) if found.cell == cell}


def test_accuracy_is_over_seeds() -> None:
    """80, 82 and 84 of 100: mean 82 %, t(0.975, 2) = 4.3027, sd 2, half-width 4.3027 * 2 / sqrt(3) = 4.968."""
    found = by_metric(evidence({RAW: [80, 82, 84]}), RAW)["trial_accuracy"]
    assert (found.value, found.launches, found.samples) == (pytest.approx(0.82), 3, 100)
    assert found.low == pytest.approx(0.82 - 0.04968, abs=1e-5)
    assert found.high == pytest.approx(0.82 + 0.04968, abs=1e-5)
    assert (found.bound_low, found.bound_high) == (0.80, 0.84)
    assert found.doubts == ()  # each launch's student is another: their answers may differ


def test_a_difference_is_taken_within_each_launch() -> None:
    """Seeds differ by 20 points, the stacks by 1, 2 and 3 of 100: 2 points, sd 1, half-width 4.3027 / sqrt(3) = 2.484."""
    found = by_metric(evidence({RAW: [60, 70, 80], TRAINER: [61, 72, 83]}), TRAINER)["trial_delta"]
    assert found.value == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02 - 0.02484, abs=1e-5)
    assert found.high == pytest.approx(0.02 + 0.02484, abs=1e-5)
    assert "trial_delta" not in by_metric(evidence({RAW: [60, 70, 80]}), RAW)


def test_a_launch_without_its_reference_is_no_pair() -> None:
    """Two pairs of three launches, and what raw PyTorch lost is a doubt about the difference alone."""
    one = made(samples={cell: [[2.0, 4.0]] * 3 for cell in (RAW, TRAINER)}, lost={(RAW, 2): "raised"})
    arrays = {"labels": LABELS, "a": answers(70), "b": answers(71)}
    measured = {
        key: replace(
            found,
            evidence=found.evidence.model_copy(
                update={"outputs": "a" if key[0] == RAW.id else "b", "labels": "labels"}
            ),
        )
        for key, found in one.measured.items()
    }
    found = by_metric(replace(one, measured=measured, arrays=arrays), TRAINER)
    assert found["trial_delta"].launches == 2
    assert [doubt.rule for doubt in found["trial_delta"].doubts] == ["launch_lost"]
    assert found["trial_accuracy"].doubts == ()


def test_every_student_is_set_beside_raw_pytorch() -> None:
    """Accuracy on the same examples may be compared whatever the loss was: also of a work with a reference of its own."""
    stages = RAW.model_copy(update={"variant": "tinybert_two_stage"})
    assert reference_of(BREWED, [RAW, stages, BREWED]) == RAW


def test_times_are_the_samples_sums() -> None:
    """2 s to build the stack and 8 s of steps: 10 s, and 160 examples at 20 a second."""
    found = by_metric(evidence({RAW: [80, 80, 80]}), RAW)
    assert found["train_s"].value == pytest.approx(10.0)
    assert found["setup_s"].value == pytest.approx(2.0)
    assert found["examples_per_s"].value == pytest.approx(20.0)


def test_a_goal_that_one_seed_missed_has_no_mean_time() -> None:
    """The two others' times are not averaged: the number is not there, and the table says why."""
    reached = {(RAW, launch): {trials.GOAL: 6.0} for launch in (1, 3)} | {
        (TRAINER, launch): {trials.GOAL: 8.0} for launch in (1, 2, 3)
    }
    one = evidence({RAW: [80, 70, 80], TRAINER: [80, 80, 80]}, reached)
    assert trials.GOAL not in by_metric(one, RAW)
    assert by_metric(one, TRAINER)[trials.GOAL].value == pytest.approx(8.0)
    numbers = {(j.finding.cell.id, j.finding.metric): j for j in judge([one], ledger_of([one]), rules())}
    made_table = table(one, numbers)
    at = made_table.head.index("time to the goal")
    shown = {row[0].text: row[at] for row in made_table.rows}
    assert shown["raw PyTorch"].note == "not reached in 1 of 3 launches"
    assert shown["transformers Trainer"].text == "8.00 s"


def test_stacks_of_other_work_stand_under_its_name() -> None:
    """In the plot under a heading, in the table below the others; nobody's energy is a column where no machine told it."""
    one = evidence({BREWED: [10, 12, 11], RAW: [80, 82, 81], TRAINER: [80, 80, 80]})
    numbers = {(j.finding.cell.id, j.finding.metric): j for j in judge([one], ledger_of([one]), rules())}
    found = table(one, numbers)
    assert [row[1].text for row in found.rows] == ["output", "output", "features"]
    assert not any("energy" in title for title in found.head)
    drawn = figure(one, numbers).svg
    assert drawn.index(">output<") < drawn.index("transformers Trainer") < drawn.index(">features<")
    assert "transformers Trainer" in drawn


def test_a_student_that_diverged_is_wrong() -> None:
    """A logit that is not a number names no class."""
    one = evidence({RAW: [100]})
    broken = np.full((100, 10), np.nan, dtype=np.float32)
    assert trials.accuracies(replace(one, arrays={**one.arrays, "raw_torch1": broken}), RAW) == {1: 0.0}


def test_a_trial_is_of_whole_batches() -> None:
    """100 examples make no whole batches of 16: some stacks would make a step more than others."""
    with pytest.raises(ValidationError, match="whole batches"):
        Trial(examples=100, batch=16)
    assert Trial(examples=160, epochs=3, batch=16).steps == 30
