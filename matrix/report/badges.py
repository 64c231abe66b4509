"""Each state's glyph, word and meaning: a state is never told by colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from matrix.verdict import PRECEDENCE, Judged


@dataclass(frozen=True)
class Mark:
    """How a state looks; `tone` picks colours and pattern in the style sheet."""

    glyph: str
    word: str
    tone: str
    meaning: str


MARKS: Final[dict[str, Mark]] = {
    "trusted": Mark(
        "✓", "trusted", "good", "measured on the target that is the authority for it, minima met, health good"
    ),
    "confirmed": Mark(
        "✓", "confirmed", "good", "not the authority, but a fresh CUDA bundle of the same workload agrees"
    ),
    "unconfirmed": Mark(
        "?", "unconfirmed", "doubt", "measured, and no authority has confirmed it: no gate may rest on it"
    ),
    "inconclusive": Mark(
        "≈", "inconclusive", "doubt", "an authority was asked, and neither agreement nor difference could be shown"
    ),
    "contradicted": Mark("✗", "contradicted", "bad", "an authority's measurement differs"),
    "degraded": Mark("▽", "degraded", "doubt", "measured under conditions that health.py doubts"),
    "emulated": Mark("◌", "emulated", "doubt", "measured on an imitation of the service"),
    "estimate": Mark("~", "estimate", "doubt", "planned and not measured"),
    "stale": Mark("◷", "stale", "doubt", "too old, or measured with other suites"),
    "invalid": Mark("⊘", "invalid", "bad", "no evidence: changed files, an uncommitted tree, a clock that failed"),
    "revoked": Mark("⊗", "revoked", "bad", "withdrawn by its signer"),
    "not measured": Mark("·", "not measured", "none", "planned here, and no bundle holds it"),
    "excluded": Mark("–", "excluded", "none", "cannot be here; the plan says why"),  # noqa: RUF001 - a dash that looks like one
    "failed": Mark("!", "failed", "bad", "planned, and raised in every launch"),
    "pass": Mark("✓", "pass", "good", "the bound keeps the limit"),
    "fail": Mark("✗", "fail", "bad", "the bound crosses the limit, or the evidence is missing"),
    "undecided": Mark("?", "undecided", "doubt", "neither can be shown: measure more"),
    "hit": Mark("✓", "hit", "good", "the measured interval overlaps the estimate's range"),
    "miss": Mark("✗", "miss", "bad", "it does not"),
    "not comparable": Mark("≠", "not comparable", "none", "a measurement would not be the same thing"),
}


def worst(judged: list[Judged]) -> str:
    """The badge that a summary of several numbers must show: the first of the precedence that any of them has."""
    held = {one.state.badge for one in judged if one.finding.value is not None}
    return next((badge for badge in PRECEDENCE if badge in held), "failed")
