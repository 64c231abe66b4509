"""Compares: two variants within a launch, and two devices on the same workload. Three answers, judged on an interval. Pure.

"Not significantly different" is not "equivalent": where neither can be shown the answer is that it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from matrix import stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.findings import paired_log_ratios
from matrix.number import reference_of
from matrix.policy import Margins
from matrix.quality import Outputs, outputs_of
from matrix.verdict import Finding, Reason

Call = Literal["faster", "slower", "equivalent", "ambiguous"]

NOISE = 1.02
"""Ratio below which nothing is called faster: A/A medians of a quiet host differ by up to 2 %."""

SAME = 1.05
"""Ratio within which two variants are called equivalent: less than any user of a latency would notice."""


def call(low: float | None, high: float | None) -> Call:
    """What a ratio's interval over launches (ours to the reference's, 1 is equal) says; None bounds say nothing."""
    if low is None or high is None:
        return "ambiguous"
    if high < 1 / NOISE:
        return "faster"
    if low > NOISE:
        return "slower"
    return "equivalent" if low > 1 / SAME and high < SAME else "ambiguous"


Answer = Literal["confirmed", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Comparison:
    """What another device's bundle says of one of our numbers, and why."""

    answer: Answer
    reasons: tuple[Reason, ...]


def _points(interval: stats.Interval) -> str:
    return f"{100 * interval.value:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] points"


def _outside(interval: stats.Interval, margin: float) -> bool:
    return interval.low > margin or interval.high < -margin


def _within(interval: stats.Interval, margin: float) -> bool:
    return -margin < interval.low and interval.high < margin


def _too_few(what: str, n: int, least: int) -> Comparison:
    return Comparison(
        "inconclusive",
        (Reason(rule="minimum", number=f"{n} {what}", threshold=f"at least {least}", remedy="measure more"),),
    )


def same_checkpoint(ours: Outputs, theirs: Outputs, margins: Margins) -> Comparison:
    """Accuracy of one checkpoint on two devices: Tango's 90 % interval within the margin, and few answers flipped.

    Two one-sided tests at 5 % are the 90 % interval (Schuirmann 1987); the flip rate's bounds are exact.
    """
    n = len(ours.labels)
    if n < margins.min_examples:
        return _too_few("examples", n, margins.min_examples)
    won, lost = int((ours.right & ~theirs.right).sum()), int((theirs.right & ~ours.right).sum())
    difference = stats.tango_interval(won, lost, n, 0.90)
    flips = stats.proportion_interval(int((ours.answers != theirs.answers).sum()), n, 0.90)
    reasons = (
        Reason(
            rule="accuracy of the same checkpoint",
            number=_points(difference),
            threshold=f"90 % interval within ±{100 * margins.accuracy:.1f} points",
            remedy="find which operator differs, or measure more examples",
        ),
        Reason(
            rule="flip rate",
            number=f"{100 * flips.value:.2f} % (bounds {100 * flips.low:.2f} to {100 * flips.high:.2f} %)",
            threshold=f"at most {100 * margins.flip_rate:.1f} %",
            remedy="find which operator differs, or measure more examples",
        ),
    )
    if _outside(difference, margins.accuracy) or flips.low > margins.flip_rate:
        return Comparison("contradicted", reasons)
    if _within(difference, margins.accuracy) and flips.high <= margins.flip_rate:
        return Comparison("confirmed", reasons)
    return Comparison("inconclusive", reasons)


def _effect(variant: Outputs, reference: Outputs) -> stats.Interval:
    won, lost = int((variant.right & ~reference.right).sum()), int((reference.right & ~variant.right).sum())
    return stats.tango_interval(won, lost, len(variant.labels), 0.90)


def _opposed(first: stats.Interval, second: stats.Interval) -> bool:
    """Whether both exclude zero on different sides."""
    return (first.low > 0 and second.high < 0) or (first.high < 0 and second.low > 0)


def _one_sided(interval: stats.Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def export_delta(ours: tuple[Outputs, Outputs], theirs: tuple[Outputs, Outputs], margins: Margins) -> Comparison:
    """What an export costs on two devices (each variant, reference): both small enough, and equal within the margin."""
    n = len(ours[0].labels)
    if n < margins.min_examples:
        return _too_few("examples", n, margins.min_examples)
    mine, other = _effect(*ours), _effect(*theirs)
    apart = (ours[0].right.astype(int) - ours[1].right) - (theirs[0].right.astype(int) - theirs[1].right)
    difference = stats.tango_interval(int((apart > 0).sum()), int((apart < 0).sum()), n, 0.90)
    # right here and wrong there, and the reference the other way round: such a pair has no place in Tango's table
    torn = bool((np.abs(apart) > 1).any())
    reasons = (
        Reason(
            rule="export delta",
            number=f"here {_points(mine)}, there {_points(other)}, difference {_points(difference)}",
            threshold=f"each at least -{100 * margins.export_delta:.1f} points, "
            f"difference within ±{100 * margins.accuracy:.1f} points",
            remedy="compare the two devices' logits example by example",
        ),
    )
    if _opposed(mine, other):
        return Comparison("contradicted", reasons)
    small = min(mine.low, other.low) >= -margins.export_delta
    agree = _one_sided(mine) == _one_sided(other)
    if small and agree and not torn and _within(difference, margins.accuracy):
        return Comparison("confirmed", reasons)
    return Comparison("inconclusive", reasons)


def ratio_to_reference(ours: Sequence[float], theirs: Sequence[float], margins: Margins) -> Comparison:
    """Log-ratios to the reference variant on two devices: Welch's 90 % interval of their difference, and the same sign."""
    pairs = min(len(ours), len(theirs))
    if pairs < margins.min_pairs:
        return _too_few("paired launches", pairs, margins.min_pairs)
    mine, other = stats.mean_interval(ours), stats.mean_interval(theirs)
    difference = stats.welch_interval(ours, theirs, 0.90)
    if mine is None or other is None or difference is None:
        return _too_few("finite pairs", 0, margins.min_pairs)
    shown = difference.map(math.exp)
    reasons = (
        Reason(
            rule="ratio to the reference variant",
            number=f"{shown.value:.3f} times the other device's, 90 % interval [{shown.low:.3f}, {shown.high:.3f}]",
            threshold=f"within a factor of {margins.ratio}; beyond {margins.ratio_contradiction} contradicts",
            remedy="more launches narrow it; a real difference stays",
        ),
    )
    if _opposed(mine, other) or _outside(difference, math.log(margins.ratio_contradiction)):
        return Comparison("contradicted", reasons)
    same_sign = mine.value * other.value >= 0
    if same_sign and _within(difference, math.log(margins.ratio)):
        return Comparison("confirmed", reasons)
    return Comparison("inconclusive", reasons)


def _ratios(evidence: Evidence, cell: Cell) -> list[float]:
    reference = reference_of(cell, evidence.bundle.planned)
    return paired_log_ratios(evidence.launches_of(cell.id), evidence.launches_of(reference.id)) if reference else []


def _quality(ours: Evidence, theirs: Evidence, cell: Cell) -> tuple[Outputs, Outputs] | None:
    mine, other = outputs_of(ours, cell), outputs_of(theirs, cell)
    if mine is None or other is None or not np.array_equal(mine.labels, other.labels):
        return None
    return mine, other


RULED: Final = frozenset({"accuracy", "accuracy_delta", "ratio"})
"""Metrics that another device can confirm. Time, throughput and memory are of one device; nothing else confirms them."""


def devices(finding: Finding, ours: Evidence, theirs: Evidence, margins: Margins) -> Comparison | None:
    """What another device's bundle says of this number as `ours` measured it; None where it holds nothing to compare."""
    cell = finding.cell
    if finding.metric == "ratio":
        return ratio_to_reference(_ratios(ours, cell), _ratios(theirs, cell), margins)
    pair = _quality(ours, theirs, cell)
    if pair is None:
        return None
    if finding.metric == "accuracy":
        return same_checkpoint(*pair, margins)
    reference = reference_of(cell, ours.bundle.planned)
    base = _quality(ours, theirs, reference) if reference else None
    if finding.metric != "accuracy_delta" or base is None:
        return None
    return export_delta((pair[0], base[0]), (pair[1], base[1]), margins)
