"""Gates: three answers on a bound, over the cells that the policy requires. Pure, and closed unless proven open.

A pass needs a finite bound on the right side of the limit, from a number that is believed, fresh, and signed by whom the policy
asks for. A missing cell fails; a number that is not a number fails; an empty policy fails. Of several fresh attempts the
worst one answers. A waiver lets the verdict pass over an answer and changes none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.cell import Cell
from matrix.certify import check, least_launches, required
from matrix.policy import Gate, Policy
from matrix.profile import Profile, Profiles
from matrix.provenance import Granted, Ledger
from matrix.standing import LAUNCHED, Rules
from matrix.target import Targets
from matrix.trust import judge
from matrix.units import show
from matrix.validity import STALE, Today, broken
from matrix.verdict import BELIEVED, Answer, GateResult, Judged, Verdict, WaiverNote

_WORST: dict[Answer, int] = {"fail": 0, "undecided": 1, "pass": 2}


@dataclass(frozen=True)
class Case:
    """All that a verdict rests on; `torn` says of bundles that cannot be read why not."""

    evidence: Sequence[Evidence]
    ledger: Ledger
    targets: Targets
    profiles: Profiles
    today: Today
    torn: Sequence[str] = ()

    def judged(self, policy: Policy, days: float, confidence: float) -> list[Judged]:
        """Every number under `policy`, stale after `days`, with bounds of `confidence`."""
        return judge(self.evidence, self.ledger, Rules(self.targets, policy, self.today, days, confidence))

    def invalid(self, policy: Policy) -> list[str]:
        """Why there is no verdict but invalid: what is torn, changed, gone without being revoked, or forked."""
        changed = [f"{one.name}: {one.faults[0]}" for one in self.evidence if one.faults]
        return [*self.torn, *sorted(changed), *broken(self.ledger, policy)]


def _bound(gate: Gate, judged: Judged) -> tuple[float | None, float | None]:
    """The bound that must be on the right side for a pass, and the opposite one, which proves a failure."""
    finding = judged.finding
    ends = (finding.bound_high, finding.bound_low)
    return ends if gate.at_most is not None else (ends[1], ends[0])


def _keeps(gate: Gate, bound: float) -> bool:
    return bound <= gate.limit if gate.at_most is not None else bound >= gate.limit


def _room(gate: Gate, judged: Judged) -> float:
    """How far the bound is inside the limit: less is worse, and no bound is the worst."""
    bound = _bound(gate, judged)[0]
    if bound is None or not math.isfinite(bound):
        return -math.inf
    return gate.limit - bound if gate.at_most is not None else bound - gate.limit


def _answer(gate: Gate, policy: Policy, judged: Judged) -> tuple[Answer, str]:
    """The answer of one number, and why."""
    if why := _against(gate, judged):
        return "fail", why
    if not judged.state.believed:
        return "undecided", _unbelieved(gate, judged)
    if lacking := _lacking(gate, policy, judged):
        return "undecided", lacking
    worst = _bound(gate, judged)[0]
    if worst is None or not math.isfinite(worst):
        percent = f"{100 * gate.confidence:g} %"
        return "undecided", f"too few samples ({judged.finding.samples} a launch) for a bound at {percent}"
    if _keeps(gate, worst):
        return "pass", "the bound keeps the limit"
    return "undecided", "the bounds lie on both sides of the limit: measure more"


def _against(gate: Gate, judged: Judged) -> str | None:
    """Why a number fails the gate, whoever believes it."""
    finding, state = judged.finding, judged.state
    worst, best = _bound(gate, judged)
    if any(end is not None and math.isnan(end) for end in (finding.value, worst, best)):
        return "the evidence is not a number"
    if state.badge in {"revoked", "invalid"}:
        return f"no evidence: {state.reasons[0]}"
    if state.badge == "contradicted":
        return f"contradicted: {state.reasons[0]}"
    if finding.launches == 0:
        return str(finding.doubts[0])
    if best is not None and not _keeps(gate, best):
        return "even the favourable bound crosses the limit"
    return None


def _unbelieved(gate: Gate, judged: Judged) -> str:
    """Why no gate may rest on a number; of one that only the wrong role signed, also what it would have said."""
    state = judged.state
    if state.badge not in BELIEVED:
        reasons = judged.finding.doubts if state.badge == "degraded" else state.reasons
        return f"{state.badge}: {reasons[0] if reasons else 'no reason was recorded'}"
    worst = _bound(gate, judged)[0]
    kept = worst is not None and math.isfinite(worst) and _keeps(gate, worst)
    reason = next(reason for reason in state.reasons if reason.rule == "role")
    return f"{reason}; {'the bound alone would keep the limit' if kept else 'and the bounds do not decide either'}"


def _lacking(gate: Gate, policy: Policy, judged: Judged) -> str | None:
    """What the gate asks for beyond what makes a number believed."""
    finding = judged.finding
    if finding.kind in LAUNCHED:
        least = least_launches(gate, policy)
        if finding.launches < least:
            return f"{finding.launches} launches, the gate asks for {least}"
        if finding.confidence < gate.confidence:
            asked = f"the gate asks for {100 * gate.confidence:g} %"
            return f"{finding.launches} launches bound at {100 * finding.confidence:.1f} %, {asked}"
    if gate.min_examples and finding.samples < gate.min_examples:
        return f"{finding.samples} examples, the gate asks for {gate.min_examples}"
    return None


def _missing(gate: Gate, target: str, cell: Cell, why: str) -> GateResult:
    return GateResult(
        gate=gate.id,
        target=target,
        cell=cell.id,
        metric=gate.metric,
        unit=METRICS[gate.metric].unit,
        answer="fail",
        bound=None,
        limit=gate.limit,
        badge=None,
        why=why,
    )


def _result(gate: Gate, policy: Policy, target: str, cell: Cell, judged: Sequence[Judged]) -> GateResult:
    """The answer of one required cell: of several fresh attempts the worst."""
    answers = [(*_answer(gate, policy, one), one) for one in judged]
    answer, why, one = min(answers, key=lambda item: (_WORST[item[0]], _room(gate, item[2]), item[2].finding.bundle))
    bound = _bound(gate, one)[0]
    finite = bound if bound is not None and math.isfinite(bound) else None
    if answer != "pass" and gate.metric == "image_bytes":
        why += _causes(one)
    attempts = f" (the worst of {len(judged)} attempts)" if len(judged) > 1 else ""
    result = _missing(gate, target, cell, why + attempts)
    found = {"answer": answer, "bound": finite, "badge": one.state.badge, "bundle": one.finding.bundle}
    return result.model_copy(update=found)


def _causes(judged: Judged) -> str:
    """What makes the image large: what to look at first when it must shrink."""
    finding = judged.finding
    told = ", ".join(f"{name} {show(size, finding.unit)}" for name, size in finding.notes.items())
    return f"; its largest parts: {told}" if told else ""


def _newest(judged: Sequence[Judged]) -> Judged | None:
    return max(judged, key=lambda one: (one.finding.created, one.finding.bundle), default=None)


def _subject(judged: Sequence[Judged]) -> str | None:
    """What the newest evidence is about: a verdict never mixes two students.

    Evidence that the policy accepts goes before any other, and what is no evidence counts if there is nothing else.
    """
    valid = [one for one in judged if _is_evidence(one)]
    newest = _newest([one for one in valid if one.state.accepted] or valid or judged)
    return newest.finding.subject if newest else None


def _is_evidence(judged: Judged) -> bool:
    return judged.state.validity != "invalid" and not judged.state.revoked


def _profiles(policy: Policy, case: Case, judged: Sequence[Judged]) -> dict[str, list[Profile]]:
    """At which profiles each target's cells are required: those of its evidence, else the first that the policy accepts."""
    first = policy.evidence.profiles[0]
    valid = [one.finding for one in judged if _is_evidence(one)]  # what is no evidence asks for nothing either
    found = {name: sorted({one.profile for one in valid if one.target == name}) for name in case.targets.target}
    return {name: [case.profiles.of(profile) for profile in held or [first]] for name, held in found.items()}


def _counting(found: Sequence[Judged]) -> list[Judged]:
    """Of the numbers of one cell those that answer: fresh ones, valid before invalid, accepted before others."""
    fresh = [one for one in found if one.state.freshness == "fresh"]
    valid = [one for one in fresh if _is_evidence(one)]  # what is no evidence is no attempt either
    return [one for one in valid if one.state.accepted] or valid or fresh


def _results(
    gate: Gate, policy: Policy, cells: Mapping[tuple[str, Cell], str | None], judged: Sequence[Judged]
) -> Iterator[GateResult]:
    by_key: dict[tuple[str, str, str], list[Judged]] = {}
    for one in judged:
        by_key.setdefault(one.finding.key, []).append(one)
    for (target, cell), excluded in cells.items():
        found = by_key.get((target, cell.id, gate.metric), [])
        if counting := _counting(found):
            yield _result(gate, policy, target, cell, counting)
        elif stale := _newest(found):
            why = next(reason for reason in stale.state.reasons if reason.rule in STALE)
            yield _missing(gate, target, cell, f"only stale evidence: {why}")
        else:
            yield _missing(
                gate, target, cell, excluded or "no bundle of this student holds this cell: measure the target"
            )


def _granted(policy: Policy, case: Case) -> list[Granted]:
    """Waivers that hold today: of this policy as it is, signed by those who may, and not expired."""
    every = sorted(case.ledger.granted, key=lambda one: one.waiver.name)
    return [one for one in every if idle(one, policy, case.today) is None]


def idle(granted: Granted, policy: Policy, today: Today) -> str | None:
    """Why a waiver does not hold today; None where it does."""
    waiver, now, asked = granted.waiver, today.now.astimezone(UTC), policy.signatures.waiver
    if not asked.accepts(granted.signers):
        return f"the policy asks for {asked}"
    if waiver.policy != policy.sha256:
        return f"it is of another policy, {waiver.policy[:12]}"
    if now < datetime.fromisoformat(waiver.created):
        return f"it begins on {waiver.created[:10]}"
    return f"it ended on {waiver.expires[:10]}" if now >= datetime.fromisoformat(waiver.expires) else None


def _waived(results: Sequence[GateResult], granted: Sequence[Granted]) -> tuple[GateResult, ...]:
    """The results, each that does not pass with the first waiver that covers it."""

    def waiver(result: GateResult) -> str | None:
        covering = (one.waiver.name for one in granted if one.waiver.covers(result.gate, result.target, result.cell))
        return None if result.answer == "pass" else next(covering, None)

    return tuple(result.model_copy(update={"waived_by": waiver(result)}) for result in results)


def _notes(results: Sequence[GateResult], granted: Sequence[Granted]) -> tuple[WaiverNote, ...]:
    return tuple(
        WaiverNote(
            name=one.waiver.name,
            signers=one.signers,
            expires=one.waiver.expires,
            why=one.waiver.why,
            used=sum(result.waived_by == one.waiver.name for result in results),
        )
        for one in granted
    )


def _asked(policy: Policy, case: Case) -> tuple[str | None, list[GateResult]]:
    """Which student is judged, and the answer of every required cell, in the policy's order."""
    subject: str | None = None
    found: dict[str, list[GateResult]] = {gate.id: [] for gate in policy.gate}
    for confidence in sorted({gate.confidence for gate in policy.gate}):
        judged = case.judged(policy, policy.evidence.gate_days, confidence)
        accepted = [one for one in judged if one.finding.profile in policy.evidence.profiles]
        subject = _subject(accepted)
        ours = [one for one in accepted if one.finding.subject == subject]
        at = _profiles(policy, case, ours)
        for gate in policy.gate:
            if gate.confidence == confidence:
                found[gate.id] = list(_results(gate, policy, required(gate, case.targets, at), ours))
    return subject, [result for results in found.values() for result in results]


def decide(policy: Policy, case: Case) -> Verdict:
    """The policy's verdict on a case.

    Raises:
        UsageError: the policy cannot mean what it says.
    """
    check(policy, case.targets, case.profiles)
    (subject, found), granted, invalid = _asked(policy, case), _granted(policy, case), case.invalid(policy)
    results = _waived(found, granted)
    counted = [result.answer for result in results if result.waived_by is None]
    answer: Answer = min(counted, key=lambda one: _WORST[one]) if counted else "fail"  # all waived: nothing was shown
    return Verdict(
        judged=case.today.now.astimezone(UTC).isoformat(timespec="seconds"),
        policy=policy.name,
        policy_sha256=policy.sha256,
        subject=subject,
        answer="fail" if invalid else answer,
        results=results,
        invalid=tuple(invalid),
        waivers=_notes(results, granted),
        bundles=tuple(sorted(one.name for one in case.evidence)),
        heads=case.ledger.heads,
    )


def sentence(verdict: Verdict) -> str:
    """The verdict in one line for people."""
    counts = {answer: sum(result.answer == answer for result in verdict.results) for answer in _WORST}
    if verdict.invalid:
        faults = "1 fault" if len(verdict.invalid) == 1 else f"{len(verdict.invalid)} faults, the first"
        return f"{verdict.policy}: INVALID, {faults} in the evidence: {verdict.invalid[0]}"
    if not verdict.results:
        return f"{verdict.policy}: FAIL, the policy has no gate, and nothing was asked"
    if all(result.waived_by for result in verdict.results):
        return (
            f"{verdict.policy}: FAIL, every one of {len(verdict.results)} requirements is waived, and nothing was shown"
        )
    told = ", ".join(f"{count} {answer}" for answer, count in counts.items() if count)
    open_ = [result for result in verdict.results if result.waived_by is None]
    first = next((result for result in open_ if result.answer == verdict.answer), verdict.results[0])
    because = "" if verdict.answer == "pass" else f"; first: {first.gate} on {first.target}, {first.cell}: {first.why}"
    if waived := len(verdict.results) - len(open_):
        because = f", {waived} of them waived by {', '.join(one.name for one in verdict.waivers if one.used)}{because}"
    about = f"student {verdict.subject[:12]}: " if verdict.subject else ""
    return f"{verdict.policy}: {about}{verdict.answer.upper()} ({told} of {len(verdict.results)} requirements){because}"


def limit_of(result: GateResult, policy: Policy) -> str:
    """A result's limit as people read it."""
    gate = next(gate for gate in policy.gate if gate.id == result.gate)
    return f"{'≤' if gate.at_most is not None else '≥'} {show(result.limit, result.unit)}"
