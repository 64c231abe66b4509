"""Gates: three answers on a bound, over the cells that the policy requires. Pure, and closed unless proven open.

A pass needs a finite bound on the right side of the limit, from a number that is trusted or confirmed and fresh. A missing
cell fails; a number that is not a number fails; an empty policy fails. Of several fresh attempts the worst one answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matrix import stats
from matrix.catalog import METRICS
from matrix.cell import Cell
from matrix.errors import UsageError
from matrix.number import CONFIDENCE
from matrix.plan import make_plan
from matrix.policy import Gate, Policy
from matrix.profile import Profile, Profiles
from matrix.target import Targets
from matrix.trust import STALE
from matrix.units import show
from matrix.verdict import Answer, GateResult, Judged, Verdict

_WORST: dict[Answer, int] = {"fail": 0, "undecided": 1, "pass": 2}


_EMPTY = "a gate that selects nothing would pass on nothing; see `matrix plan` for what there is"


def _selects(gate: Gate, cell: Cell) -> bool:
    return (
        (cell.suite, cell.workload) == (gate.suite, gate.workload)
        and cell.variant in gate.variants
        and gate.mode in (None, cell.mode)
        and (gate.lengths is None or cell.length in gate.lengths)
        and (gate.memory_mb is None or cell.memory_mb in gate.memory_mb)
    )


def required(
    gate: Gate, targets: Targets, profiles: Mapping[str, Sequence[Profile]]
) -> dict[tuple[str, Cell], str | None]:
    """Every (target, cell) that the gate names at the target's profiles, with why it is not planned there (None: it is).

    Raises:
        UsageError: a variant, a length or a memory size selects nothing that one of the targets could hold.
    """
    found: dict[tuple[str, Cell], str | None] = {}
    for name in gate.targets:
        offered: dict[Cell, str | None] = {}
        target = targets.of(name)
        for profile in profiles[name]:
            plan = make_plan(name, target, profile)
            offered |= dict.fromkeys(plan.planned) | {item.cell: item.reason for item in plan.excluded}
        selected = {(name, cell): reason for cell, reason in offered.items() if _selects(gate, cell)}
        suite = [cell for cell in offered if (cell.suite, cell.workload) == (gate.suite, gate.workload)]
        for cells in (suite, [cell for _, cell in selected]):  # the first names what is not there at all
            _check_selection(gate, name, cells)
        found |= selected
    return found


def _check_selection(gate: Gate, target: str, cells: Sequence[Cell]) -> None:
    """Refuse a gate of which some part selects nothing on a target: it would require less than it says."""
    asked: dict[str, tuple[Iterable[object], set[object]]] = {
        "variants": (gate.variants, {cell.variant for cell in cells}),
        "lengths": (gate.lengths or (), {cell.length for cell in cells}),
        "memory_mb": (gate.memory_mb or (), {cell.memory_mb for cell in cells}),
    }
    for key, (wanted, seen) in asked.items():
        nothing = [str(value) for value in wanted if value not in seen]
        if nothing:
            raise UsageError(
                f"gate {gate.id!r} selects nothing on {target} by {key} = {', '.join(nothing)}", remedy=_EMPTY
            )


def check(policy: Policy) -> None:
    """Refuse a policy that cannot mean what it says.

    Raises:
        UsageError: two gates share a name, a metric is not one of the gate's suite, a gate has no limit or two, or the least
            evidence that it asks for could never prove what it would be taken to prove.
    """
    _check_evidence(policy)
    names = [gate.id for gate in policy.gate]
    for gate in policy.gate:
        if names.count(gate.id) > 1:
            raise UsageError(f"two gates are called {gate.id!r}", remedy="give each gate its own id")
        yielded = [metric.name for metric in METRICS.values() if gate.suite in metric.suites]
        if gate.metric not in yielded:
            raise UsageError(
                f"gate {gate.id!r} asks {gate.suite} for metric {gate.metric!r}",
                remedy=f"name one of {', '.join(yielded)}",
            )
        if (gate.at_most is None) == (gate.at_least is None):
            raise UsageError(f"gate {gate.id!r} needs one limit", remedy="give either at_most or at_least")


def _check_evidence(policy: Policy) -> None:
    margins, least = policy.margins, policy.evidence.min_launches
    if stats.median_launch_confidence(least) < CONFIDENCE:
        raise UsageError(
            f"{least} launches bound the median launch at {100 * stats.median_launch_confidence(least):.1f} %",
            remedy="ask for min_launches of at least 5",
        )
    certain = stats.tango_interval(0, 0, margins.min_examples, 0.90).high
    if certain >= margins.accuracy:
        raise UsageError(
            f"{margins.min_examples} equal answers prove a difference of at most {100 * certain:.2f} points",
            remedy=f"raise min_examples until {100 * margins.accuracy:.2f} points can be proven, or widen the margin",
        )
    if margins.ratio_contradiction < margins.ratio:
        raise UsageError("ratio_contradiction is below ratio", remedy="one ratio would be confirmed and contradicted")


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


def _answer(gate: Gate, judged: Judged) -> tuple[Answer, str]:
    """The answer of one number, and why."""
    finding, state = judged.finding, judged.state
    worst, best = _bound(gate, judged)
    if any(end is not None and math.isnan(end) for end in (finding.value, worst, best)):
        return "fail", "the evidence is not a number"
    if state.badge == "invalid":
        return "fail", f"invalid evidence: {state.reasons[0]}"
    if finding.launches == 0:
        return "fail", str(finding.doubts[0])
    if best is not None and not _keeps(gate, best):
        return "fail", "even the favourable bound crosses the limit"
    if not state.believed:
        return "undecided", f"{state.badge}: {state.reasons[0] if state.reasons else 'no reason was recorded'}"
    if worst is None or not math.isfinite(worst):
        return "undecided", f"too few samples ({finding.samples} a launch) for a bound at 95 %"
    if _keeps(gate, worst):
        return "pass", "the bound keeps the limit"
    return "undecided", "the bounds lie on both sides of the limit: measure more"


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


def _result(gate: Gate, target: str, cell: Cell, judged: Sequence[Judged]) -> GateResult:
    """The answer of one required cell: of several fresh attempts the worst."""
    answers = [(*_answer(gate, one), one) for one in judged]
    answer, why, one = min(answers, key=lambda item: (_WORST[item[0]], _room(gate, item[2]), item[2].finding.bundle))
    bound = _bound(gate, one)[0]
    finite = bound if bound is not None and math.isfinite(bound) else None
    if answer != "pass" and gate.metric == "image_bytes":
        why += _causes(one)
    attempts = f" (the worst of {len(judged)} attempts)" if len(judged) > 1 else ""
    result = _missing(gate, target, cell, why + attempts)
    return result.model_copy(update={"answer": answer, "bound": finite, "badge": one.state.badge})


def _causes(judged: Judged) -> str:
    """What makes the image large: what to look at first when it must shrink."""
    finding = judged.finding
    told = ", ".join(f"{name} {show(size, finding.unit)}" for name, size in finding.notes.items())
    return f"; its largest parts: {told}" if told else ""


def _newest(judged: Sequence[Judged]) -> Judged | None:
    return max(judged, key=lambda one: (one.finding.created, one.finding.bundle), default=None)


def _subject(judged: Sequence[Judged]) -> str | None:
    """What the newest evidence is about: a verdict never mixes two students. What is no evidence counts if there is no other."""
    newest = _newest([one for one in judged if one.state.validity != "invalid"] or judged)
    return newest.finding.subject if newest else None


def _profiles(policy: Policy, targets: Targets, known: Profiles, judged: Sequence[Judged]) -> dict[str, list[Profile]]:
    """At which profiles each target's cells are required: those of its evidence, else the first that the policy accepts."""
    first = policy.evidence.profiles[0]
    found = {
        name: sorted({one.finding.profile for one in judged if one.finding.target == name}) for name in targets.target
    }
    return {name: [known.of(profile) for profile in held or [first]] for name, held in found.items()}


def _results(
    gate: Gate, cells: Mapping[tuple[str, Cell], str | None], judged: Sequence[Judged]
) -> Iterator[GateResult]:
    by_key: dict[tuple[str, str, str], list[Judged]] = {}
    for one in judged:
        by_key.setdefault(one.finding.key, []).append(one)
    for (target, cell), excluded in cells.items():
        found = by_key.get((target, cell.id, gate.metric), [])
        fresh = [one for one in found if one.state.freshness == "fresh"]
        valid = [one for one in fresh if one.state.validity != "invalid"]  # what is no evidence is no attempt either
        if counting := valid or fresh:
            yield _result(gate, target, cell, counting)
        elif stale := _newest(found):
            why = next(reason for reason in stale.state.reasons if reason.rule in STALE)
            yield _missing(gate, target, cell, f"only stale evidence: {why}")
        else:
            yield _missing(
                gate, target, cell, excluded or "no bundle of this student holds this cell: measure the target"
            )


def decide(
    policy: Policy,
    judged: Sequence[Judged],
    targets: Targets,
    profiles: Profiles,
    *,
    invalid: Sequence[str],
    bundles: Sequence[str],
) -> Verdict:
    """The policy's verdict on `judged` numbers; `invalid` names bundles that cannot be evidence at all.

    Raises:
        UsageError: the policy cannot mean what it says.
    """
    check(policy)
    accepted = [one for one in judged if one.finding.profile in policy.evidence.profiles]
    subject = _subject(accepted)
    ours = [one for one in accepted if one.finding.subject == subject]
    at = _profiles(policy, targets, profiles, ours)
    results = tuple(result for gate in policy.gate for result in _results(gate, required(gate, targets, at), ours))
    answers = [result.answer for result in results]
    answer: Answer = min(answers, key=lambda one: _WORST[one]) if answers else "fail"
    return Verdict(
        policy=policy.name,
        policy_sha256=policy.sha256,
        subject=subject,
        answer="fail" if invalid else answer,
        results=results,
        invalid=tuple(invalid),
        bundles=tuple(sorted(bundles)),
    )


def sentence(verdict: Verdict) -> str:
    """The verdict in one line for people."""
    counts = {answer: sum(result.answer == answer for result in verdict.results) for answer in _WORST}
    if verdict.invalid:
        return f"{verdict.policy}: INVALID, {len(verdict.invalid)} bundles are no evidence: {verdict.invalid[0]}"
    if not verdict.results:
        return f"{verdict.policy}: FAIL, the policy has no gate, and nothing was asked"
    told = ", ".join(f"{count} {answer}" for answer, count in counts.items() if count)
    first = next((result for result in verdict.results if result.answer == verdict.answer), verdict.results[0])
    because = "" if verdict.answer == "pass" else f"; first: {first.gate} on {first.target}, {first.cell}: {first.why}"
    about = f"student {verdict.subject[:12]}: " if verdict.subject else ""
    return f"{verdict.policy}: {about}{verdict.answer.upper()} ({told} of {len(verdict.results)} requirements){because}"


def limit_of(result: GateResult, policy: Policy) -> str:
    """A result's limit as people read it."""
    gate = next(gate for gate in policy.gate if gate.id == result.gate)
    return f"{'≤' if gate.at_most is not None else '≥'} {show(result.limit, result.unit)}"
