"""Quality beside speed: what each stack's student has learnt after the same number of examples, and what that took."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from matrix import trials
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Entry, Numbers, Table, name_of, number, rows_of, titles
from matrix.report.training import by_work, head_of, work_of

_COLUMNS: Final = (
    "trial_accuracy",
    "trial_delta",
    "time_to_accuracy_s",
    "train_s",
    "setup_s",
    "examples_per_s",
    "peak_bytes",
)
_ENERGY: Final = ("cpu_energy_j", "gpu_energy_j")
"""Columns where a machine told them."""


def _ordered(evidence: Evidence, numbers: Numbers) -> list[Cell]:
    """By work; within one whoever trains fastest first."""

    def seconds(cell: Cell) -> float:
        judged = numbers.get((cell.id, "train_s"))
        return judged.finding.value or 0.0 if judged else 0.0

    return by_work(cells_of(evidence, "training_quality"), seconds)


def _goal(evidence: Evidence, numbers: Numbers, cell: Cell) -> Entry:
    """The time to the goal; where some launches never came there, how many: the others' mean would be of the lucky."""
    launches = list(evidence.launches_of(cell.id).values())
    missed = len(launches) - trials.reached(launches)
    if missed:
        return Entry(note=f"not reached in {missed} of {len(launches)} launches")
    return number(numbers.get((cell.id, trials.GOAL)))


def table(evidence: Evidence, numbers: Numbers) -> Table:
    """A row a stack, grouped by work."""
    cells, told = _ordered(evidence, numbers), {metric for _, metric in numbers}
    columns = (*_COLUMNS, *(name for name in _ENERGY if name in told))
    at = columns.index(trials.GOAL) + len(head_of(cells[0]))
    rows = [
        (*row[:at], _goal(evidence, numbers, cell), *row[at + 1 :]) if evidence.launches_of(cell.id) else row
        for row, cell in zip(rows_of(evidence, numbers, cells, head_of, columns), cells, strict=True)
    ]
    return Table(
        "trials", "Quality beside speed", _lead(evidence), ("Stack", "Its work", *titles(columns)), tuple(rows)
    )


def _lead(evidence: Evidence) -> str:
    profile, data = evidence.bundle.profile, evidence.bundle.prepared.data
    trial = profile.trial
    return (
        f"Each stack trains the same student from the same weights: {trial.epochs} times {trial.examples:,} examples, "
        f"{trial.steps} steps of {trial.batch}, padded to {trial.length} tokens, at a constant rate of {trial.lr:g}. "
        f"Each of {profile.launches} launches has weights and an order of its own; intervals are over launches, and a "
        f"difference is taken within each (Student's 95 %). Accuracy is of {data.validation.examples:,} validation examples. "
        f"The goal is {100 * trial.goal:.0f} %, looked for at every tenth of the training on the first thousand. Training "
        "begins when the stack is built: trainers, caches and processes are part of it."
    )


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """Accuracy of each stack against raw PyTorch's, under the name of its work."""
    rows: list[Row] = []
    for work, members in groupby(_ordered(evidence, numbers), key=work_of):
        found = [
            row_of(name_of(cell).text, judged, tuple(trials.deltas(evidence, cell).values()))
            for cell in members
            if (judged := numbers.get((cell.id, trials.PAIRED)))
        ]
        rows += [Row(work), *found] if found else []
    axis = Axis(
        "accuracy against raw PyTorch, points",
        lambda v: f"{100 * v:+.1f}",
        lines=((0.0, "raw PyTorch, the same seed"),),
    )
    described = "Accuracy of each stack's student against that of raw PyTorch, with its interval"
    svg = plot(f"plot-trials-{evidence.bundle.target}", described, rows, axis)
    return Figure(
        svg, "A dot is a launch, whose stacks began with the same weights; the bar is the 95 % interval of the mean."
    )
