"""What another device's number says of ours: one of three answers, its reasons, and a p-value for sets of them. Pure.

"Not significantly different" is not "equivalent": where neither can be shown the answer is that it cannot be told.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from matrix import stats
from matrix.verdict import Reason

Answer = Literal["confirmed", "contradicted", "inconclusive"]
Key = TypeVar("Key", bound=Hashable)

LEVEL: Final = 0.05
"""Of each test of equivalence, and of a set of them together: a 90 % interval within the margin is two one-sided tests at 5 %."""


@dataclass(frozen=True)
class Comparison:
    """What another device's bundle says of one of our numbers, and why.

    `p` is the p-value of the test of equivalence, the largest of its parts: 1 where it cannot confirm, at most `LEVEL` where
    it does.
    """

    answer: Answer
    reasons: tuple[Reason, ...]
    p: float


def settled(p: float, reasons: tuple[Reason, ...], *, contradicted: bool) -> Comparison:
    """Contradicted where something says so, confirmed where the test of equivalence passes, else it cannot be told."""
    if contradicted:
        return Comparison("contradicted", reasons, 1.0)
    return Comparison("confirmed" if p <= LEVEL else "inconclusive", reasons, p)


def points(interval: stats.Interval) -> str:
    """A difference of proportions, for people."""
    return f"{100 * interval.value:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] points"


def outside(interval: stats.Interval, margin: float) -> bool:
    """Whether an interval lies wholly beyond the margin, on either side."""
    return interval.low > margin or interval.high < -margin


def unsaid(number: str, threshold: str, remedy: str = "measure more") -> Comparison:
    """What lacks its minimum says nothing."""
    return Comparison("inconclusive", (Reason(rule="minimum", number=number, threshold=threshold, remedy=remedy),), 1.0)


def too_few(what: str, n: int, least: int) -> Comparison:
    """Fewer observations than the policy asks for."""
    return unsaid(f"{n} {what}", f"at least {least}")


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else "below 0.0001"  # noqa: PLR2004 - the last digit that is shown


def _kept(found: Comparison, p: float, several: int) -> Comparison:
    """A comparison after its p-value was adjusted to `p` among `several`; one that would confirm tells both."""
    if found.answer != "confirmed":
        return found
    reason = Reason(
        rule="holm",
        number=f"p {_p(found.p)}, {_p(p)} adjusted over {several} comparison{'s' if several > 1 else ''}",
        threshold=f"at most {LEVEL}",
        remedy="measure more examples or launches",
    )
    answer: Answer = "confirmed" if p <= LEVEL else "inconclusive"
    return replace(found, answer=answer, reasons=(*found.reasons, reason))


def adjusted(comparisons: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    """A set of comparisons, each confirmed only if the chance of any wrong confirmation among them is 5 % (Holm 1979).

    Contradictions, and what could not be told, stay as they are and count.
    """
    ps = stats.holm([one.p for one in comparisons.values()])
    return {key: _kept(one, p, len(ps)) for (key, one), p in zip(comparisons.items(), ps, strict=True)}
