"""What is not believed, and why: contradictions, quarantined devices, imitations, unaccepted signers; each reason once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matrix.report.badges import ORDER, mark_of
from matrix.report.material import Material
from matrix.report.tables import Entry, Table
from matrix.verdict import BELIEVED, Judged, Reason

_NAMED: Final = 3
"""Numbers that a row names before it only counts them."""

_Group = tuple[str, str, tuple[str, ...]]
"""Target, mark, and what numbers must have in common to share a row."""


def _rank(mark: str) -> tuple[bool, int]:
    """Contradictions first, then the worst."""
    return mark != "contradicted", ORDER.index(mark)


def _reasons(judged: Judged) -> Sequence[Reason]:
    """Why a number is not believed: of a revoked one its revocation, of one that lacks but the right signer that, and no more."""
    if judged.state.revoked:
        return judged.state.reasons[:1]
    if judged.state.badge in BELIEVED:
        return [reason for reason in judged.state.reasons if reason.rule == "role"]
    return judged.state.reasons


def _common(reason: Reason, mark: str) -> tuple[str, ...]:
    """What makes two reasons one: not the number, unless it is what contradicts."""
    number = (reason.number,) if mark == "contradicted" else ()
    return (reason.rule, reason.threshold, reason.remedy, *number)


def _grouped(material: Material) -> dict[_Group, list[tuple[Judged, Reason]]]:
    """Every doubted number by target, mark and reason, in the order of the table."""
    found: dict[_Group, list[tuple[Judged, Reason]]] = {}
    for one in material.judged:
        if one.state.believed:
            continue
        mark = mark_of(one.state)
        for reason in _reasons(one):
            found.setdefault((one.finding.target, mark, _common(reason, mark)), []).append((one, reason))
    places = list(material.targets.target)
    return dict(sorted(found.items(), key=lambda item: (_rank(item[0][1]), places.index(item[0][0]))))


def _several(texts: Sequence[str]) -> tuple[str, str]:
    """The first, and how many others there are."""
    every = list(dict.fromkeys(texts))
    return every[0], f"and {len(every) - 1} like it" if len(every) > 1 else ""


def _row(target: str, mark: str, held: Sequence[tuple[Judged, Reason]]) -> tuple[Entry, ...]:
    findings = [one.finding for one, _ in held]
    names = list(dict.fromkeys(f"{one.cell.variant} {one.metric}" for one in findings))
    named = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    reason = held[0][1]
    return (
        Entry(target),
        Entry("", mark=mark),
        Entry(str(len(findings)), named),
        Entry(reason.rule),
        Entry(*_several([reason.number for _, reason in held])),
        Entry(reason.threshold),
        Entry(reason.remedy),
    )


def table(material: Material) -> Table:
    """A row a target, state and reason; no row where everything is believed."""
    lead = (
        "No gate may rest on these numbers. Contradictions come first; each reason stands once, with the number that it "
        "looked at, its threshold, and what would change it."
    )
    head = ("Target", "State", "Numbers", "Rule", "Found", "Threshold", "Remedy")
    rows = tuple(_row(target, mark, held) for (target, mark, _), held in _grouped(material).items())
    return Table("doubted", "Not believed, and why", lead, head, rows)
