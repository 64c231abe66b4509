"""Gates: three answers on a bound, over the cells that the policy requires. Pure, and closed unless proven open.

A pass needs a finite bound on the right side of the limit, from a number that is trusted or confirmed and fresh. A missing
cell fails; a number that is not a number fails; an empty policy fails. Of several fresh attempts the worst one answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from matrix.catalog import METRICS
from matrix.cell import Cell
from matrix.errors import UsageError
from matrix.plan import make_plan
from matrix.policy import Gate, Policy
from matrix.profile import Profiles
from matrix.target import Targets
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


def required(gate: Gate, policy: Policy, targets: Targets, profiles: Profiles) -> dict[tuple[str, Cell], str | None]:
    """Every (target, cell) that the gate names, with the reason why it is not planned there, or None when it is.

    Raises:
        UsageError: a variant, a length or a memory size selects nothing that the matrix could hold.
    """
    offered: dict[tuple[str, Cell], str | None] = {}
    for name in gate.targets:
        for profile in policy.evidence.profiles:
            plan = make_plan(name, targets.of(name), profiles.of(profile))
            cells = [(cell, None) for cell in plan.planned] + [(item.cell, item.reason) for item in plan.excluded]
            offered |= {(name, cell): reason for cell, reason in cells}
    found = {key: reason for key, reason in offered.items() if _selects(gate, key[1])}
    suite = [cell for _, cell in offered if (cell.suite, cell.workload) == (gate.suite, gate.workload)]
    _check_selection(gate, suite, selected=len(found))
    return found


def _check_selection(gate: Gate, cells: Sequence[Cell], *, selected: int) -> None:
    asked: dict[str, tuple[Iterable[object], set[object]]] = {
        "variants": (gate.variants, {cell.variant for cell in cells}),
        "lengths": (gate.lengths or (), {cell.length for cell in cells}),
        "memory_mb": (gate.memory_mb or (), {cell.memory_mb for cell in cells}),
    }
    for key, (wanted, seen) in asked.items():
        nothing = [str(value) for value in wanted if value not in seen]
        if nothing:
            raise UsageError(f"gate {gate.id!r} selects nothing by {key} = {', '.join(nothing)}", remedy=_EMPTY)
    if not selected:
        raise UsageError(f"gate {gate.id!r} selects nothing", remedy=_EMPTY)


def check(policy: Policy) -> None:
    """Refuse a policy that cannot mean what it says.

    Raises:
        UsageError: two gates share a name, a metric is unknown, or a gate has no limit or two.
    """
    names = [gate.id for gate in policy.gate]
    for gate in policy.gate:
        if names.count(gate.id) > 1:
            raise UsageError(f"two gates are called {gate.id!r}", remedy="give each gate its own id")
        if gate.metric not in METRICS:
            raise UsageError(
                f"gate {gate.id!r} asks for metric {gate.metric!r}", remedy=f"name one of {', '.join(METRICS)}"
            )
        if (gate.at_most is None) == (gate.at_least is None):
            raise UsageError(f"gate {gate.id!r} needs one limit", remedy="give either at_most or at_least")


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
    attempts = f" (the worst of {len(judged)} attempts)" if len(judged) > 1 else ""
    result = _missing(gate, target, cell, why + attempts)
    return result.model_copy(update={"answer": answer, "bound": finite, "badge": one.state.badge})


def _results(
    gate: Gate, policy: Policy, targets: Targets, profiles: Profiles, judged: Sequence[Judged]
) -> Iterator[GateResult]:
    by_key: dict[tuple[str, str, str], list[Judged]] = {}
    for one in judged:
        by_key.setdefault(one.finding.key, []).append(one)
    for (target, cell), excluded in required(gate, policy, targets, profiles).items():
        found = by_key.get((target, cell.id, gate.metric), [])
        fresh = [one for one in found if one.state.freshness == "fresh"]
        counting = [
            one for one in fresh if one.state.validity != "invalid"
        ] or fresh  # what is no evidence is no attempt either
        if counting:
            yield _result(gate, target, cell, counting)
        elif found:
            yield _missing(gate, target, cell, f"only stale evidence: {found[-1].state.reasons[-1]}")
        else:
            yield _missing(gate, target, cell, excluded or "no bundle holds this cell: measure the target")


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
    results = tuple(result for gate in policy.gate for result in _results(gate, policy, targets, profiles, judged))
    answers = [result.answer for result in results]
    answer: Answer = min(answers, key=lambda one: _WORST[one]) if answers else "fail"
    return Verdict(
        policy=policy.name,
        policy_sha256=policy.sha256,
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
    return f"{verdict.policy}: {verdict.answer.upper()} ({told} of {len(verdict.results)} requirements){because}"


def limit_of(result: GateResult, policy: Policy) -> str:
    """A result's limit as people read it."""
    gate = next(gate for gate in policy.gate if gate.id == result.gate)
    return f"{'≤' if gate.at_most is not None else '≥'} {show(result.limit, result.unit)}"
