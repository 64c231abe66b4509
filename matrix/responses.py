"""What exports of a response student lose: perplexity, divergence, same first token, from each answered token. Pure.

The statistics are those of llama.cpp's perplexity tool (tools/perplexity, `--kl-divergence`). Tokens of one conversation are not
independent, so every interval is over conversations: that of a ratio of sums (Cochran, Sampling Techniques, 3rd edition 1977,
section 6.4), as Miller, Adding Error Bars to Evals, 2024, section 2.2 asks for clustered questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from matrix import stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.number import Number, reference_of
from matrix.quality import Floats, bounded, kept

SUITE: Final = "response_quality"


@dataclass(frozen=True)
class Told:
    """What a cell said of each answered token, and the token's conversation.

    Log probability of the token that follows, by the cell and by the reference; KL divergence from the reference (nats); whether
    both put the same token first.
    """

    log_q: Floats
    log_p: Floats
    divergence: Floats
    same: Floats
    conversations: npt.NDArray[np.int64]

    @property
    def delta_p(self) -> Floats:
        """How much more probable the cell finds the token that follows: q - p."""
        found: Floats = np.exp(self.log_q) - np.exp(self.log_p)
        return found

    def mean(self, values: Floats, confidence: float) -> stats.Interval | None:
        """Mean of a value a token, with its interval over conversations."""
        return stats.clustered_interval(values, self.conversations, confidence)


def told_by(evidence: Evidence, cell: Cell) -> Told | None:
    """What the first launch that ran `cell` found; None where no launch did."""
    found = kept(evidence, cell)
    if found is None:
        return None
    log_q, log_p, divergence, same = found[0].T
    return Told(log_q, log_p, divergence, same, found[1])


def _same_top(told: Told, confidence: float) -> stats.Interval | None:
    """The share of tokens; where no conversation has another one, not more of them can have one than chance would hide."""
    if told.same.all():
        count = len(np.unique(told.conversations))
        return stats.proportion_interval(count, count, confidence)
    return told.mean(told.same, confidence)


def _exp(interval: stats.Interval | None) -> stats.Interval | None:
    return interval and interval.map(math.exp)


def _root(interval: stats.Interval | None) -> stats.Interval | None:
    return interval and interval.map(lambda value: math.sqrt(max(0.0, value)))


def numbers_of(evidence: Evidence, cell: Cell, confidence: float) -> Iterator[Number]:
    """Perplexity of a cell over the answers' tokens, and its comparison with the reference token by token."""
    told = told_by(evidence, cell)
    if told is None:
        return
    n = len(told.log_q)
    yield from bounded("perplexity", lambda level: _exp(told.mean(-told.log_q, level)), n, confidence)
    if reference_of(cell, evidence.bundle.planned) in (None, cell):
        return
    lost = told.log_p - told.log_q
    yield from bounded("perplexity_ratio", lambda level: _exp(told.mean(lost, level)), n, confidence)
    yield from bounded("token_kl", lambda level: told.mean(told.divergence, level), n, confidence)
    yield from bounded("same_top", lambda level: _same_top(told, level), n, confidence)
    yield from bounded("mean_delta_p", lambda level: told.mean(told.delta_p, level), n, confidence)
    yield from bounded("rms_delta_p", lambda level: _root(told.mean(told.delta_p**2, level)), n, confidence)
