"""A verdict as a CI step's summary in Markdown: the answer, what is open, what was waived. Never longer than CI takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from matrix.gates import sentence
from matrix.policy import Policy
from matrix.report.badges import MARKS
from matrix.report.markdown import escaped
from matrix.units import show
from matrix.verdict import GateResult, Verdict

LARGEST: Final = 1_000_000
"""Bytes: GitHub drops a step's summary of more than 1 MiB as a whole."""

_ORDER: Final = {"fail": 0, "undecided": 1, "pass": 2}
_MORE: Final = "\n{} more lines are in verdict.json.\n"


def _row(result: GateResult) -> str:
    mark, badge = MARKS[result.answer], MARKS[result.badge].word if result.badge else "—"
    answer = f"{mark.glyph} {mark.word}" + (f", waived by {result.waived_by}" if result.waived_by else "")
    cell = f"{result.target}: {result.cell} {result.metric}"
    entries = (
        result.gate,
        cell,
        show(result.bound, result.unit),
        show(result.limit, result.unit),
        badge,
        answer,
        result.why,
    )
    return f"| {' | '.join(escaped(entry) for entry in entries)} |\n"


def _lines(verdict: Verdict, policy: Policy) -> Iterator[str]:
    mark = MARKS[verdict.answer]
    yield f"## {mark.glyph} {escaped(sentence(verdict))}\n\n"
    yield f"Judged {verdict.judged} under policy {policy.name} `{policy.sha256[:12]}` on {len(verdict.bundles)} bundles.\n\n"
    for fault in verdict.invalid:
        yield f"- **invalid evidence**: {escaped(fault)}\n"
    for waiver in verdict.waivers:
        roles = ", ".join(signer.role for signer in waiver.signers)
        used = f"until {waiver.expires[:10]}, passes over {waiver.used} of the answers"
        yield f"- **waiver {escaped(waiver.name)}** by {roles} {used}: {escaped(waiver.why)}\n"
    yield "\n| Gate | Cell | Bound | Limit | State | Answer | Why |\n|---|---|---|---|---|---|---|\n"
    for result in sorted(verdict.results, key=_urgency):
        yield _row(result)


def _urgency(result: GateResult) -> tuple[bool, int]:
    """What is open before what was waived or passes, and of either the worst first."""
    return result.waived_by is not None or result.answer == "pass", _ORDER[result.answer]


def render(verdict: Verdict, policy: Policy) -> str:
    """The summary as Markdown text; what does not fit is counted, and the worst answers come first."""
    kept, size, left_out = [], len(_MORE.encode()) + 10, 0  # the count of what is left out has at most ten digits
    for line in _lines(verdict, policy):
        size += len(line.encode())
        if size > LARGEST or left_out:
            left_out += 1
        else:
            kept.append(line)
    return "".join(kept) + (_MORE.format(left_out) if left_out else "")
