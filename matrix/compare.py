"""Compares: two variants within a launch, and two devices on the same workload. Three answers, judged on an interval. Pure.

"Not significantly different" is not "equivalent": where neither can be shown the answer is that it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from matrix import stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.confirm import LEVEL, Comparison, adjusted, outside, points, settled, too_few, unsaid
from matrix.findings import launch_values, paired_log_ratios, tensors_of
from matrix.number import reference_of
from matrix.policy import Margins
from matrix.quality import Outputs, outputs_of
from matrix.steps import Seeded, tensors, trained
from matrix.verdict import Finding, Reason

__all__ = [
    "RULED",
    "Comparison",
    "Outputs",
    "Seeded",
    "adjusted",
    "call",
    "devices",
    "export_delta",
    "ratio_to_reference",
    "same_checkpoint",
    "same_time",
    "tensors",
    "trained",
]

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


def _too_few_examples(n: int, margins: Margins) -> Comparison | None:
    """Fewer than the policy asks for, or than could prove the margin if every answer were the same.

    Exactly, as a flip rate of 0: without a discordant pair Tango's approximation errs in up to 6.7 % of cases, not 5 %.
    """
    if n < margins.min_examples:
        return too_few("examples", n, margins.min_examples)
    if stats.flip_p(0, n, margins.accuracy) > LEVEL:
        return unsaid(f"{n} examples", f"so many that equal answers prove ±{100 * margins.accuracy:.1f} points")
    return None


def _discordant(first: Outputs, second: Outputs) -> tuple[int, int]:
    """How many examples only the first has right, and only the second."""
    return int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum())


def same_checkpoint(ours: Outputs, theirs: Outputs, margins: Margins) -> Comparison:
    """Accuracy of one checkpoint on two devices: Tango's 90 % interval within the margin, and few answers flipped.

    Two one-sided tests at 5 % are the 90 % interval (Schuirmann 1987); the flip rate's bounds are exact.
    """
    n = len(ours.labels)
    if lacking := _too_few_examples(n, margins):
        return lacking
    pairs, flipped = _discordant(ours, theirs), int((ours.answers != theirs.answers).sum())
    difference = stats.tango_interval(*pairs, n, 0.90)
    flips = stats.proportion_interval(flipped, n, 0.90)
    reasons = (
        Reason(
            rule="accuracy of the same checkpoint",
            number=points(difference),
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
    p = max(stats.tango_p(*pairs, n, margins.accuracy), stats.flip_p(flipped, n, margins.flip_rate))
    apart = outside(difference, margins.accuracy) or flips.low > margins.flip_rate
    return settled(p, reasons, contradicted=apart)


def _opposed(first: stats.Interval, second: stats.Interval) -> bool:
    """Whether both exclude zero on different sides."""
    return (first.low > 0 and second.high < 0) or (first.high < 0 and second.low > 0)


def _one_sided(interval: stats.Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _drop_p(pair: tuple[Outputs, Outputs], margins: Margins) -> float:
    """p-value that a variant loses less than an export may cost."""
    won, lost = _discordant(*pair)
    return stats.drop_p(lost, won, len(pair[0].labels), margins.export_delta)


def _apart(ours: tuple[Outputs, Outputs], theirs: tuple[Outputs, Outputs]) -> tuple[int, int, bool]:
    """Examples on which the export does better here than there, and worse; and whether any is torn.

    Right here and wrong there, and the reference the other way round: such a pair has no place in Tango's table.
    """
    apart = (ours[0].right.astype(int) - ours[1].right) - (theirs[0].right.astype(int) - theirs[1].right)
    return int((apart > 0).sum()), int((apart < 0).sum()), bool((np.abs(apart) > 1).any())


def export_delta(ours: tuple[Outputs, Outputs], theirs: tuple[Outputs, Outputs], margins: Margins) -> Comparison:
    """What an export costs on two devices (each variant, reference): both small enough, and equal within the margin."""
    n = len(ours[0].labels)
    if lacking := _too_few_examples(n, margins):
        return lacking
    mine, other = (stats.tango_interval(*_discordant(*pair), n, 0.90) for pair in (ours, theirs))
    better, worse, torn = _apart(ours, theirs)
    difference = stats.tango_interval(better, worse, n, 0.90)
    reasons = (
        Reason(
            rule="export delta",
            number=f"here {points(mine)}, there {points(other)}, difference {points(difference)}",
            threshold=f"each at least -{100 * margins.export_delta:.1f} points, "
            f"difference within ±{100 * margins.accuracy:.1f} points",
            remedy="compare the two devices' logits example by example",
        ),
    )
    equal = stats.tango_p(better, worse, n, margins.accuracy)
    agree = _one_sided(mine) == _one_sided(other) and not torn
    p = max(equal, _drop_p(ours, margins), _drop_p(theirs, margins)) if agree else 1.0
    return settled(p, reasons, contradicted=_opposed(mine, other))


def ratio_to_reference(
    ours: Sequence[float], theirs: Sequence[float], margins: Margins, *, there: str = "the other device"
) -> Comparison:
    """Log-ratios to the reference variant on two devices: Welch's 90 % interval of their difference, and the same sign.

    `there` names the device that ours is confirmed against: a ratio is never confirmed for itself.
    """
    pairs = min(len(ours), len(theirs))
    if pairs < margins.min_pairs:
        return too_few("paired launches", pairs, margins.min_pairs)
    mine, other = stats.mean_interval(ours), stats.mean_interval(theirs)
    difference = stats.welch_interval(ours, theirs, 0.90)
    if mine is None or other is None or difference is None:
        return too_few("finite pairs", 0, margins.min_pairs)
    shown = difference.map(math.exp)
    reasons = (
        Reason(
            rule="ratio to the reference variant",
            number=f"{shown.value:.3f} times that of {there}, 90 % interval [{shown.low:.3f}, {shown.high:.3f}]",
            threshold=f"within a factor of {margins.ratio}; beyond {margins.ratio_contradiction} contradicts",
            remedy="more launches narrow it; a real difference stays",
        ),
    )
    same_sign = mine.value * other.value >= 0
    p = stats.welch_p(ours, theirs, math.log(margins.ratio)) if same_sign else 1.0
    apart = _opposed(mine, other) or outside(difference, math.log(margins.ratio_contradiction))
    return settled(p, reasons, contradicted=apart)


def same_time(finding: Finding, ours: Evidence, theirs: Evidence, margins: Margins) -> Comparison | None:
    """An emulated time (or memory) beside the real service's, launch by launch: Welch's interval of the log-ratio.

    None where either holds nothing of it. The margins are those of a ratio: what is imitated may be off by so much.
    """
    mine, other = (launch_values(one, finding.cell, finding.metric) for one in (ours, theirs))
    if not mine or not other:
        return None
    here, there = ([math.log(value) for value in side if value > 0] for side in (mine, other))
    launches = min(len(here), len(there))
    if launches < margins.min_pairs:
        return too_few("launches", launches, margins.min_pairs)
    difference = stats.welch_interval(here, there, 0.90)
    if difference is None:
        return too_few("finite launches", 0, margins.min_pairs)
    shown = difference.map(math.exp)
    reasons = (
        Reason(
            rule="the real service",
            number=f"{shown.value:.3f} times the real one, 90 % interval [{shown.low:.3f}, {shown.high:.3f}]",
            threshold=f"within a factor of {margins.ratio}; beyond {margins.ratio_contradiction} contradicts",
            remedy="more launches narrow it; what differs then is the emulation",
        ),
    )
    apart = outside(difference, math.log(margins.ratio_contradiction))
    return settled(stats.welch_p(here, there, math.log(margins.ratio)), reasons, contradicted=apart)


def _ratios(evidence: Evidence, cell: Cell) -> list[float]:
    reference = reference_of(cell, evidence.bundle.planned)
    return paired_log_ratios(evidence.launches_of(cell.id), evidence.launches_of(reference.id)) if reference else []


def _quality(ours: Evidence, theirs: Evidence, cell: Cell) -> tuple[Outputs, Outputs] | None:
    mine, other = outputs_of(ours, cell), outputs_of(theirs, cell)
    if mine is None or other is None or not np.array_equal(mine.labels, other.labels):
        return None
    return mine, other


def _tensors(ours: Evidence, theirs: Evidence, margins: Margins) -> Comparison | None:
    mine, other = tensors_of(ours), tensors_of(theirs)
    return tensors(mine, other, margins) if mine and other else None


RULED: Final = frozenset({"accuracy", "accuracy_delta", "ratio", "tensor_rmse", "trained_accuracy"})
"""Metrics that another device can confirm. Time, throughput and memory are of one device; nothing else confirms them.

Of these `trained_accuracy` needs students of several seeds, a bundle each: `devices` sees two bundles and says nothing of it.
"""


def devices(finding: Finding, ours: Evidence, theirs: Evidence, margins: Margins) -> Comparison | None:
    """What another device's bundle says of this number as `ours` measured it; None where it holds nothing to compare."""
    cell = finding.cell
    if finding.metric == "ratio":
        return ratio_to_reference(_ratios(ours, cell), _ratios(theirs, cell), margins, there=theirs.bundle.target)
    if finding.metric == "tensor_rmse":
        return _tensors(ours, theirs, margins)
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
