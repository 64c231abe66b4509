"""What exports cost in quality: accuracy, paired differences, flips and divergences, from every example's logits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matrix import stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.number import CONFIDENCE, Number, reference_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outputs:
    """Logits (examples x classes, fp64) and labels of one quality cell, and which examples it has right."""

    logits: Floats
    labels: npt.NDArray[np.int64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each example's largest logit is its label's."""
        right: npt.NDArray[np.bool_] = self.answers == self.labels
        return right

    @property
    def answers(self) -> npt.NDArray[np.int64]:
        """Each example's class; -1, which is no class, where a logit is not a number (`argmax` would name its place)."""
        told = np.isfinite(self.logits).all(axis=1)
        answers: npt.NDArray[np.int64] = np.where(told, np.argmax(self.logits, axis=1), -1)
        return answers


def kept(evidence: Evidence, cell: Cell) -> tuple[Floats, npt.NDArray[np.int64]] | None:
    """Outputs and labels of the first launch that ran `cell`; None where no launch did, or it kept none."""
    launches = evidence.launches_of(cell.id)
    if not launches:
        return None
    first = launches[min(launches)].evidence
    if first.outputs is None or first.labels is None:
        return None
    return evidence.arrays[first.outputs].astype(np.float64), evidence.arrays[first.labels]


def outputs_of(evidence: Evidence, cell: Cell) -> Outputs | None:
    """What the first launch that ran `cell` answered; None where no launch did."""
    found = kept(evidence, cell)
    return Outputs(*found) if found else None


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def kl_divergences(reference: Floats, variant: Floats) -> Floats:
    """KL divergence `sum p (log p - log q)` of each example in nats: p the reference's softmax, q the variant's."""
    log_p, log_q = _log_softmax(reference), _log_softmax(variant)
    found: Floats = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return found


def _to_twelve_decimals(interval: stats.Interval | None) -> stats.Interval | None:
    """What every machine derives: numpy 2.4's exp and log end differently on AVX2 and AVX-512, by about 1e-16 of a mean KL.

    A signed verdict is derived anew wherever it is checked, and has to come out the same. Digits would not do: an exact export's
    mean KL is 1e-14, and nothing but such endings.
    """
    return interval and interval.map(lambda value: round(value, 12))


def bounded(
    metric: str, interval: Callable[[float], stats.Interval | None], n: int, confidence: float, **notes: float
) -> Iterator[Number]:
    """A number with its two-sided 95 % interval and one-sided bounds at `confidence`; none where there is no interval."""
    wide, narrow = (_to_twelve_decimals(interval(level)) for level in (CONFIDENCE, 2 * confidence - 1))
    if wide and narrow:
        yield Number(metric, wide.value, wide.low, wide.high, narrow.low, narrow.high, confidence, n, notes)


def share(metric: str, count: int, n: int, confidence: float) -> Iterator[Number]:
    """A proportion of examples with its exact interval and bounds."""
    yield from bounded(metric, lambda level: stats.proportion_interval(count, n, level), n, confidence)


def numbers_of(evidence: Evidence, cell: Cell, confidence: float) -> Iterator[Number]:
    """Accuracy of a quality cell, and its paired comparison with the reference on the same examples."""
    ours = outputs_of(evidence, cell)
    if ours is None:
        return
    n = len(ours.labels)
    yield from share("accuracy", int(ours.right.sum()), n, confidence)
    reference = reference_of(cell, evidence.bundle.planned)
    theirs = outputs_of(evidence, reference) if reference and reference != cell else None
    if theirs is not None and np.array_equal(ours.labels, theirs.labels):
        yield from _against(ours, theirs, n, confidence)


def _against(ours: Outputs, theirs: Outputs, n: int, confidence: float) -> Iterator[Number]:
    """The paired comparison with the reference: how much is lost, how far distributions and answers move."""
    won, lost = int((ours.right & ~theirs.right).sum()), int((theirs.right & ~ours.right).sum())
    notes = {"won": won, "lost": lost, "mcnemar_p": stats.mcnemar_exact(lost, won)}
    yield from bounded(
        "accuracy_delta", lambda level: stats.tango_interval(won, lost, n, level), n, confidence, **notes
    )
    divergences = list(kl_divergences(theirs.logits, ours.logits))
    yield from bounded("mean_kl", lambda level: stats.bounded_mean_interval(divergences, level), n, confidence)
    yield from share("flip_rate", int((ours.answers != theirs.answers).sum()), n, confidence)
    largest = float(np.abs(ours.logits - theirs.logits).max())
    yield Number("max_dlogit", largest, largest, largest, largest, largest, 1.0, n, {})
