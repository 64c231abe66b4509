"""Do finer types of a response student's weights lose less than coarser ones? Pure: step by step, from one bundle.

A step that neither holds nor fails beyond chance is undecided, and says by how much.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.cell import Cell
from matrix.number import CONFIDENCE
from matrix.quality import Floats
from matrix.responses import SUITE, Told, told_by
from matrix.schemes import NOTHING, Found
from matrix.units import show, show_interval

ORDER: Final = ("gguf_f16", "gguf_q8_0", "gguf_q6_k", "gguf_q4_k_m")
"""From the type that is to lose least to the one that is to lose most."""

CHANCE: Final = (1 - CONFIDENCE) / (len(ORDER) - 1)
"""How often a step may be decided wrongly, so that all of a column are right with `CONFIDENCE` (Bonferroni)."""


@dataclass(frozen=True)
class Step:
    """One step of the ordering, `finer` losing less than `coarser`: by divergence, and by the share of the same first tokens."""

    finer: Cell
    coarser: Cell
    divergence: Found
    same: Found


def _decided(metric: str, values: Floats, told: Told) -> Found:
    """Whether a difference (the coarser file's loss minus the finer's, by token) is above zero beyond chance."""
    if not values.any():
        return Found("undecided", f"the same on each of {len(values):,} tokens")
    interval = told.mean(values, 1 - CHANCE)
    if interval is None:
        return Found("undecided", "its differences have no interval")
    unit = METRICS[metric].unit
    why = f"it loses {show(interval.value, unit)} more {show_interval(interval.low, interval.high, unit)}"
    if interval.low <= 0 <= interval.high:
        return Found("undecided", why)
    return Found("holds" if interval.low > 0 else "does not hold", why)


def steps(evidence: Evidence) -> list[Step]:
    """Every step of `ORDER` of which the bundle planned both files."""
    cells = {cell.variant: cell for cell in evidence.bundle.planned if cell.suite == SUITE}
    found = []
    for finer, coarser in itertools.pairwise(ORDER):
        if finer not in cells or coarser not in cells:
            continue
        ours, theirs = told_by(evidence, cells[finer]), told_by(evidence, cells[coarser])
        if ours is None or theirs is None or not np.array_equal(ours.conversations, theirs.conversations):
            found.append(Step(cells[finer], cells[coarser], NOTHING, NOTHING))
            continue
        divergence = _decided("token_kl", theirs.divergence - ours.divergence, ours)
        same = _decided("same_top", ours.same - theirs.same, ours)
        found.append(Step(cells[finer], cells[coarser], divergence, same))
    return found


def summary(found: list[Step]) -> str:
    """How many steps hold, by divergence and by first token, in one sentence."""
    columns = {
        "KL": [one.divergence.answer for one in found],
        "the same first token": [one.same.answer for one in found],
    }
    told = [
        f"by {title} {answers.count('holds')} of {len(answers)} hold"
        + (f" ({', '.join(answer for answer in answers if answer != 'holds')})" if set(answers) != {"holds"} else "")
        for title, answers in columns.items()
    ]
    return f"Of the steps f16 > Q8_0 > Q6_K > Q4_K_M, {'; '.join(told)}."
