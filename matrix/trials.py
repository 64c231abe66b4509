"""What trials say of training stacks: accuracy over seeds, paired differences to raw PyTorch, times. Pure.

Each launch trains from another seed, and every stack of it from the same weights: launches are blocks. An accuracy's
uncertainty is over launches, so that it holds for another seed too; a difference is taken within each launch first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from matrix import stats
from matrix.bundle import Evidence, Measured
from matrix.cell import Cell
from matrix.number import Number, over_launches, reference_of
from matrix.quality import Outputs

PAIRED = "trial_delta"
GOAL = "time_to_accuracy_s"


def accuracies(evidence: Evidence, cell: Cell) -> dict[int, float]:
    """Share of the validation split that each launch's student has right; a logit that is not a number is wrong."""
    return {
        launch: float(Outputs(evidence.arrays[one.evidence.outputs], evidence.arrays[one.evidence.labels]).right.mean())
        for launch, one in sorted(evidence.launches_of(cell.id).items())
        if one.evidence.outputs and one.evidence.labels
    }


def deltas(evidence: Evidence, cell: Cell) -> dict[int, float]:
    """Accuracy minus the reference's of the same launch, which began with the same weights; none for the reference itself."""
    reference = reference_of(cell, evidence.bundle.planned)
    if reference is None or reference == cell:
        return {}
    ours, theirs = accuracies(evidence, cell), accuracies(evidence, reference)
    return {launch: ours[launch] - theirs[launch] for launch in ours if launch in theirs}


def reached(launches: Sequence[Measured]) -> int:
    """How many launches' students reached the goal."""
    return sum(GOAL in one.evidence.facts for one in launches)


def times(one: Measured, cell: Cell) -> dict[str, float]:
    """A training's times by metric: its first sample built the stack, each of the others is a block of steps."""
    whole, setup = float(one.samples.sum()), float(one.samples[0])
    return {"train_s": whole, "setup_s": setup, "examples_per_s": (cell.examples or 0) / (whole - setup)}


def launch_values(evidence: Evidence, cell: Cell, metric: str) -> dict[int, float]:
    """What each launch that tells says of a metric."""
    if metric == "trial_accuracy":
        return accuracies(evidence, cell)
    if metric == PAIRED:
        return deltas(evidence, cell)
    told = {launch: {**one.evidence.facts, **times(one, cell)} for launch, one in evidence.launches_of(cell.id).items()}
    return {launch: values[metric] for launch, values in sorted(told.items()) if metric in values}


def _mean(metric: str, values: Sequence[float], examples: int) -> Number:
    """A mean over launches with Student's interval; its bounds are the extreme launches."""
    interval = stats.mean_interval(values)
    low, high = (interval.low, interval.high) if interval else (None, None)
    confidence = stats.median_launch_confidence(len(values))
    value, extremes = float(np.mean(values)), (min(values), max(values))
    return Number(metric, value, low, high, *extremes, confidence, examples, {}, launches=len(values))


def numbers(evidence: Evidence, cell: Cell) -> Iterator[Number]:
    """A trial's numbers, but for the facts that its launches noted."""
    launches = evidence.launches_of(cell.id)
    labels = [evidence.arrays[one.evidence.labels] for one in launches.values() if one.evidence.labels]
    for metric in ("trial_accuracy", PAIRED):
        if values := list(launch_values(evidence, cell, metric).values()):
            yield _mean(metric, values, min(len(one) for one in labels))
    for metric in ("train_s", "setup_s", "examples_per_s"):
        values = list(launch_values(evidence, cell, metric).values())
        yield replace(over_launches(metric, values, 1), launches=len(values))
