"""Does the lecture's ordering of quantisation schemes hold here? Pure: the paper's table, and what a bundle measured, step by step.

Refuses a verdict that the evidence does not carry: a step that neither holds nor fails beyond chance is undecided, and two schemes
that answer alike say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from matrix import stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.number import CONFIDENCE, reference_of
from matrix.quality import Floats, Outputs, kl_divergences, outputs_of
from matrix.units import show, show_interval

SUITE: Final = "quantization_schemes"
SOURCE: Final = (
    "Dettmers, Lewis, Belkada and Zettlemoyer, LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale, NeurIPS 2022, "
    "table 1: perplexity on C4's validation data"
)
SIZES: Final = ("125M", "1.3B", "2.7B", "6.7B", "13B")
"""Parameters of the paper's models."""

PERPLEXITIES: Final[Mapping[str, tuple[float, ...]]] = {
    "fp32": (25.65, 15.91, 14.43, 13.30, 12.45),
    "absmax": (87.76, 16.55, 15.11, 14.59, 19.08),
    "zeropoint": (56.66, 16.24, 14.76, 13.49, 13.94),
    "absmax_row_wise": (30.93, 17.08, 15.24, 14.13, 16.49),
    "absmax_vector_wise": (35.84, 16.82, 14.98, 14.13, 16.48),
    "zeropoint_vector_wise": (25.72, 15.94, 14.36, 13.38, 13.47),
    "absmax_row_wise_decomposed": (30.76, 16.19, 14.65, 13.25, 12.46),
    "llm_int8": (25.83, 15.93, 14.44, 13.24, 12.45),
    "llm_int8_zeropoint": (25.69, 15.92, 14.43, 13.24, 12.45),
}
"""What the lecture shows, by variant in its order and by `SIZES`: it stands beside what is measured, never in its place."""

CASES: Final[Mapping[str, str]] = {
    "product_error": "planted, one sign",
    "two_sided_error": "planted, either sign",
    "plain_error": "no outlier",
}
"""The metrics of the study's matrices (workloads/planted.py), as their columns are called."""

Answer = Literal["holds", "does not hold", "undecided", "not measured"]


@dataclass(frozen=True)
class Step:
    """One step of the ordering: `lower` loses less than `higher`."""

    claim: str
    lower: str
    higher: str


STEPS: Final = (
    Step("zero-point loses less than absmax", "zeropoint", "absmax"),
    Step("absmax row-wise loses less than absmax", "absmax_row_wise", "absmax"),
    Step("absmax vector-wise loses less than row-wise", "absmax_vector_wise", "absmax_row_wise"),
    Step("zero-point vector-wise loses less than absmax vector-wise", "zeropoint_vector_wise", "absmax_vector_wise"),
    Step("decomposition helps absmax row-wise", "absmax_row_wise_decomposed", "absmax_row_wise"),
    Step("decomposition helps absmax vector-wise", "llm_int8", "absmax_vector_wise"),
    Step("LLM.int8() loses less than row-wise + decomposition", "llm_int8", "absmax_row_wise_decomposed"),
    Step("LLM.int8() loses less than zero-point vector-wise", "llm_int8", "zeropoint_vector_wise"),
    Step("zero-point LLM.int8() loses less than absmax LLM.int8()", "llm_int8_zeropoint", "llm_int8"),
)

CHANCE: Final = (1 - CONFIDENCE) / len(STEPS)
"""How often a step may be decided wrongly, so that all of a column are right with `CONFIDENCE` (Bonferroni)."""


@dataclass(frozen=True)
class Found:
    """What one kind of evidence says of a step, and by which numbers."""

    answer: Answer
    why: str


NOTHING: Final = Found("not measured", "no launch measured both")
"""Of a step of which a side is missing."""


@dataclass(frozen=True)
class Compared:
    """A step beside the paper's table and what a bundle found: on matrices by metric, and on the student."""

    step: Step
    paper: str
    matrices: Mapping[str, Found]
    student: Found

    @property
    def sentence(self) -> str:
        """The step in one sentence."""
        matrices = "; ".join(f"{CASES[metric]}, it {_told(found)}" for metric, found in self.matrices.items())
        claim = self.step.claim[:1].upper() + self.step.claim[1:]
        return f"{claim} {self.paper} of the paper; on matrices: {matrices}; on the student it {_told(self.student)}."


def _told(found: Found) -> str:
    verb = "" if found.answer in {"holds", "does not hold"} else "is "
    return f"{verb}{found.answer} ({found.why})"


def _in_paper(step: Step) -> str:
    pairs = list(zip(PERPLEXITIES[step.lower], PERPLEXITIES[step.higher], strict=True))
    lower, equal = sum(mine < theirs for mine, theirs in pairs), sum(mine == theirs for mine, theirs in pairs)
    return f"at {lower} of {len(pairs)} sizes" + (f" (equal at {equal})" if equal else "")


def draws(evidence: Evidence, cell: Cell, metric: str) -> dict[str, float]:
    """Each draw's error, by its name; none where no launch measured the cell."""
    launches = evidence.launches_of(cell.id)
    facts = launches[min(launches)].evidence.facts if launches else {}
    return {name: value for name, value in facts.items() if name.startswith(f"{metric}:")}


def _on_matrices(evidence: Evidence, lower: Cell, higher: Cell, metric: str) -> Found:
    """By the sign of the difference in each draw (the sign test: all of n agree by chance in 2 x 0.5^n of cases)."""
    mine, theirs = draws(evidence, lower, metric), draws(evidence, higher, metric)
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        return NOTHING
    less, more = sum(mine[name] < theirs[name] for name in both), sum(mine[name] > theirs[name] for name in both)
    if not less and not more:
        return Found("undecided", f"the same error in each of {len(both)} draws")
    times = math.exp(float(np.mean([math.log(mine[name] / theirs[name]) for name in both])))
    why = f"{times:.3g} times its error, smaller in {less} of {len(both)} draws"
    if stats.mcnemar_exact(less, more) > CHANCE:
        return Found("undecided", why)
    return Found("holds" if less > more else "does not hold", why)


def _divergences(evidence: Evidence, outputs: Outputs, cell: Cell) -> Floats | None:
    reference = reference_of(cell, evidence.bundle.planned)
    theirs = outputs_of(evidence, reference) if reference else None
    return kl_divergences(theirs.logits, outputs.logits) if theirs else None


def _on_the_student(evidence: Evidence, lower: Cell, higher: Cell) -> Found:
    """By the paired difference of the KL divergences from fp32; accuracy, which moves less, stands beside it."""
    ours, theirs = outputs_of(evidence, lower), outputs_of(evidence, higher)
    mine = _divergences(evidence, ours, lower) if ours else None
    other = _divergences(evidence, theirs, higher) if theirs else None
    if ours is None or theirs is None or mine is None or other is None:
        return NOTHING
    n = len(ours.labels)
    if np.array_equal(ours.logits, theirs.logits):
        return Found("undecided", f"the same logits on each of {n:,} examples")
    interval = stats.bounded_mean_interval(list(mine - other), 1 - CHANCE)
    if interval is None:
        return Found("undecided", "its divergences have no interval")
    won, lost = int((ours.right & ~theirs.right).sum()), int((theirs.right & ~ours.right).sum())
    accuracy = stats.tango_interval(won, lost, n, 1 - CHANCE)
    why = (
        f"mean KL differs by {show(interval.value, '')} {show_interval(interval.low, interval.high, '')}, "
        f"accuracy by {show(accuracy.value, 'points')} {show_interval(accuracy.low, accuracy.high, 'points')}"
    )
    if interval.low <= 0 <= interval.high:
        return Found("undecided", why)
    return Found("holds" if interval.high < 0 else "does not hold", why)


def compared(evidence: Evidence) -> list[Compared]:
    """Every step of which the bundle planned both schemes."""
    cells = {cell.variant: cell for cell in evidence.bundle.planned if cell.suite == SUITE}
    return [
        Compared(
            step,
            _in_paper(step),
            {metric: _on_matrices(evidence, cells[step.lower], cells[step.higher], metric) for metric in CASES},
            _on_the_student(evidence, cells[step.lower], cells[step.higher]),
        )
        for step in STEPS
        if step.lower in cells and step.higher in cells
    ]


_OTHERS: Final[Mapping[Answer, str]] = {
    "does not hold": "reversed",
    "undecided": "undecided",
    "not measured": "not measured",
}


def summary(steps: list[Compared]) -> str:
    """How many steps hold, kind of evidence by kind, in one sentence."""
    columns = {title: [one.matrices[metric].answer for one in steps] for metric, title in CASES.items()}
    columns["on the student"] = [one.student.answer for one in steps]
    told = []
    for title, answers in columns.items():
        held = f"{answers.count('holds')} of {len(answers)} hold"
        others = [f"{answers.count(answer)} {word}" for answer, word in _OTHERS.items() if answer in answers]
        told.append(f"{title}: {', '.join([held, *others])}")
    return f"Of the ordering's steps, {'; '.join(told)}."
