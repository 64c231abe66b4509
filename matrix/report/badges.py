"""Each state's glyph, word and meaning: a state is never told by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matrix.verdict import BELIEVED, PRECEDENCE, Judged, State


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
        "✓", "confirmed", "good", "not the authority, but a fresh bundle of one, of the same workload, agrees"
    ),
    "trusted, not accepted": Mark(
        "?",
        "trusted, not accepted",
        "doubt",
        "as trusted, but nobody whom the policy asks for signed it: no gate may rest on it",
    ),
    "confirmed, not accepted": Mark(
        "?",
        "confirmed, not accepted",
        "doubt",
        "as confirmed, but nobody whom the policy asks for signed it, or what confirms it: no gate may rest on it",
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
    "invalid": Mark(
        "⊘",
        "invalid",
        "bad",
        "no evidence: unsigned, changed files, an uncommitted tree, a canary that failed",
    ),
    "revoked": Mark("⊗", "revoked", "bad", "withdrawn by a signed revocation: it says nothing, for or against"),
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


_UNACCEPTED: Final = tuple(f"{badge}, not accepted" for badge in PRECEDENCE if badge in BELIEVED)
ORDER: Final = (*(badge for badge in PRECEDENCE if badge not in BELIEVED), *_UNACCEPTED, "confirmed", "trusted")
"""Marks of states, the worst first."""


def mark_of(state: State) -> str:
    """The mark of a state: its badge, which never looks like one to rest on where the policy accepts no signer."""
    unaccepted = state.badge in BELIEVED and not state.accepted
    return f"{state.badge}, not accepted" if unaccepted else state.badge


def worst(judged: Sequence[Judged]) -> str:
    """The mark that a summary of several numbers must show: that of the worst of them."""
    held = {mark_of(one.state) for one in judged if one.finding.value is not None}
    return next((mark for mark in ORDER if mark in held), "failed")
