"""How one number came to be what it is, step by step: evidence, signature, launches, bounds, doubts, authorities, state, gates.

A view: it prints what judgement already found, and finds nothing itself.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from matrix import trials
from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.errors import UsageError
from matrix.findings import QUANTILES, launch_values, paired_log_ratios
from matrix.gates import Case, decide, limit_of
from matrix.number import CONFIDENCE, reference_of
from matrix.policy import Policy
from matrix.quality import outputs_of
from matrix.ranks import upper_rank
from matrix.responses import SUITE as RESPONSES
from matrix.responses import told_by
from matrix.units import DASH, show, show_interval
from matrix.validity import STALE, isa_of
from matrix.verdict import PRECEDENCE, Finding, GateResult, Judged, Reason, Verdict

_WIDE = 132
Step = tuple[str, str]
"""What is asked, and the answer."""


def _evidence(one: Evidence) -> Iterator[Step]:
    bundle = one.bundle
    where = f"profile {bundle.profile.name}, {bundle.executor}, attempt {bundle.attempt}"
    yield (
        "evidence",
        f"{one.name}, measured {bundle.created[:16]}, commit {(bundle.source.commit or DASH)[:12]}, {where}",
    )
    faults = [str(fault) for fault in one.faults]
    yield "files", "; ".join(faults) or f"{len(bundle.files)}, each as sealed"


def _signature(one: Evidence, case: Case, policy: Policy) -> Iterator[Step]:
    said, asked = case.ledger.vouched.get(one.name), policy.signatures.of(one.bundle.target)
    if said is None:
        yield "signature", case.ledger.refused.get(one.name, "nobody signed it")
        return
    by = ", ".join(map(str, said.signers))
    accepts = "which is enough" if asked and asked.accepts(said.signers) else "which is not enough"
    number = f"number {said.attestation.serial} of its chain, until {said.attestation.expires[:10]}"
    yield "signature", f"{by}, {number}; the policy asks for {asked or 'nobody'}, {accepts}"


def _launches(one: Evidence, finding: Finding) -> Iterator[Step]:
    """What each launch says: values over launches for a time, pairs for a ratio, counts over examples for a quality."""
    if finding.kind in {"quality", "export_delta"}:
        yield from _examples(one, finding)
        return
    measured = one.launches_of(finding.cell.id)
    yield "launches", f"measured in {len(measured)} of {len(one.bundle.launches)}"
    yield from _lost(one, finding)
    if finding.metric == "ratio":
        yield from _pairs(one, finding)
        return
    if finding.cell.suite == "training_quality":
        for index, value in trials.launch_values(one, finding.cell, finding.metric).items():
            yield f"launch {index}", show(value, finding.unit)
        return
    values = launch_values(one, finding.cell, finding.metric)
    for (index, launch), value in zip(sorted(measured.items()), values, strict=False):
        yield f"launch {index}", show(value, finding.unit) + _ranked(list(launch.samples), finding)


def _lost(one: Evidence, finding: Finding) -> Iterator[Step]:
    """The last line of what each launch says that did not measure the cell."""
    for record in one.bundle.launches:
        for outcome in record.outcomes:
            if outcome.cell == finding.cell.id and outcome.error:
                yield f"launch {record.index}", f"{outcome.state}: {outcome.error.strip().splitlines()[-1]}"


def _ranked(samples: list[float], finding: Finding) -> str:
    """Which sample of a launch bounds a quantile; nothing for what is no quantile, or one under load, which none bounds."""
    q = QUANTILES.get(finding.metric)
    if q is None or finding.cell.suite == "concurrent_load":
        return ""
    rank = upper_rank(len(samples), q, CONFIDENCE)
    if not rank:
        return f" of {len(samples)} samples, too few for a bound"
    bound = sorted(samples)[rank - 1]
    worst = ", the worst launch" if bound == finding.bound_high else ""
    shown = show(bound, finding.unit)
    return f" of {len(samples)} samples; bound {shown}, the sample of rank {rank} (binomial, 95 %){worst}"


def _pairs(one: Evidence, finding: Finding) -> Iterator[Step]:
    """The ratio of medians in each launch that ran both variants."""
    reference = reference_of(finding.cell, one.bundle.planned)
    if reference is None:
        return
    ours, theirs = one.launches_of(finding.cell.id), one.launches_of(reference.id)
    both = sorted(set(ours) & set(theirs))
    for index, log in zip(both, paired_log_ratios(ours, theirs), strict=False):
        value = math.exp(log)
        worst = ", the worst launch" if value == finding.bound_high else ""
        yield f"launch {index}", f"{show(value, finding.unit)}, median beside that of {reference.variant}{worst}"


def _examples(one: Evidence, finding: Finding) -> Iterator[Step]:
    tokens = told_by(one, finding.cell) if finding.cell.suite == RESPONSES else None
    if tokens:
        answers = len(np.unique(tokens.conversations))
        yield "tokens", f"{len(tokens.log_q):,} of {answers:,} answers, instruction set {isa_of(one) or DASH}"
        return
    ours, reference = outputs_of(one, finding.cell), reference_of(finding.cell, one.bundle.planned)
    if ours is None:
        yield "examples", "no launch kept its answers"
        return
    yield "examples", f"{int(ours.right.sum())} right of {len(ours.labels)}, instruction set {isa_of(one) or DASH}"
    if reference and reference != finding.cell and finding.notes:
        told = ", ".join(f"{name} {value:g}" for name, value in finding.notes.items())
        yield "paired", f"with {reference.variant}: {told}"


def _number(finding: Finding) -> Iterator[Step]:
    if finding.launches == 0:
        yield "number", "none: no launch measured it"
        return
    value, interval = show(finding.value, finding.unit), show_interval(finding.low, finding.high, finding.unit)
    how = "over launches" if finding.confidence != CONFIDENCE else "over examples"
    yield "number", f"{value}, 95 % interval {interval} {how}"
    low, high = show(finding.bound_low, finding.unit), show(finding.bound_high, finding.unit)
    yield "bounds", f"at least {low}, at most {high}; each at {100 * finding.confidence:.1f} %"


def _speakers(finding: Finding, case: Case) -> Iterator[Step]:
    """Who may say that the number is true: as the targets are defined."""
    target, kind = case.targets.of(finding.target), finding.kind
    groups = " or ".join(target.confirmed_by.get(kind, ()))
    if kind in target.authority:
        yield "authority", f"{finding.target} itself, for its {kind}"
    if kind in target.emulates:
        yield "authority", f"not {finding.target}, which imitates its {kind}"
    if groups:
        yield "authority", f"{groups} may confirm its {kind}"
    elif kind not in target.authority:
        yield "authority", f"nobody: no other machine can confirm the {kind} of {finding.target}"


def _step_of(reason: Reason, finding: Finding) -> str:
    """Which step of the derivation a reason belongs to."""
    if reason in finding.doubts:
        return "doubt"
    if reason in finding.faults:
        return "fault"
    names = {"revoked": "revoked", "role": "signers", "holm": "set"} | dict.fromkeys(STALE, "age")
    return names.get(reason.rule, "reason")


def _state(judged: Judged) -> Iterator[Step]:
    state, finding = judged.state, judged.finding
    for reason in state.reasons:
        yield _step_of(reason, finding), str(reason)
    if not finding.doubts and not finding.faults:
        yield "doubts", "none about how it was measured"
    yield "trust", f"{state.trust}; {state.origin}, {state.validity}, {state.freshness}"
    asked = PRECEDENCE[: PRECEDENCE.index(state.badge) + 1]
    yield "badge", " > ".join(f"{badge} {'yes' if badge == state.badge else 'no'}" for badge in asked)
    if not state.accepted:
        yield "accepted", "no: a gate may not rest on it"


def _gates(finding: Finding, verdict: Verdict, policy: Policy) -> Iterator[Step]:
    asked = [result for result in verdict.results if _about(result, finding)]
    for result in asked:
        by = f" (of {result.bundle})" if result.bundle not in (None, finding.bundle) else ""
        says = f"{result.answer}{by}: bound {show(result.bound, result.unit)}, limit {limit_of(result, policy)}; {result.why}"
        waived = f"; waived by {result.waived_by}" if result.waived_by else ""
        yield "gate", f"{result.gate}: {says}{waived}"
    if not asked:
        yield "gate", f"none of {policy.name} asks for it"
    if verdict.invalid:
        yield "verdict", f"invalid, whatever a gate says: {verdict.invalid[0]}"


def _about(result: GateResult, finding: Finding) -> bool:
    return (result.target, result.cell, result.metric) == finding.key


def _matching(judged: Sequence[Judged], cell: str, metric: str | None, target: str | None) -> list[Judged]:
    """The numbers that are meant.

    Raises:
        UsageError: there is none.
    """
    found = [one for one in judged if cell == one.finding.cell.id] or [
        one for one in judged if cell in one.finding.cell.id
    ]
    found = [one for one in found if metric in {None, one.finding.metric} and target in {None, one.finding.target}]
    if found:
        return found
    cells = sorted({one.finding.cell.id for one in judged})
    near = [name for name in cells if any(part in name for part in cell.split("/"))] or cells
    known = ", ".join(near[:5]) or "there is no bundle: `matrix run` measures"
    raise UsageError(f"no number of {cell!r} is here", remedy=f"name a cell that was measured: {known}")


def _text(judged: Judged, steps: Sequence[Step]) -> Iterator[str]:
    finding = judged.finding
    title = f"{METRICS[finding.metric].title} ({finding.metric}) of {finding.cell.id} on {finding.target}"
    accepted = "" if judged.state.accepted else ", not accepted"
    yield f"{title}: {show(finding.value, finding.unit)}, {judged.state.badge}{accepted}"
    for name, answer in steps:
        body = textwrap.wrap(answer, _WIDE - 14, break_long_words=False, break_on_hyphens=False) or [""]
        yield f"  {name:<10}  {body[0]}"
        yield from (f"{'':14}{line}" for line in body[1:])


def explain(case: Case, policy: Policy, cell: str, *, metric: str | None = None, target: str | None = None) -> str:
    """The derivation of each number of `cell` (an identifier, or a part of one), as text.

    Raises:
        UsageError: no number is called so.
    """
    judged, verdict = case.judged(policy, policy.evidence.gate_days, CONFIDENCE), decide(policy, case)
    bundles = {one.name: one for one in case.evidence}
    parts = []
    for one in _matching(judged, cell, metric, target):
        bundle, finding = bundles[one.finding.bundle], one.finding
        steps = [*_evidence(bundle), *_signature(bundle, case, policy), *_launches(bundle, finding), *_number(finding)]
        steps += [*_speakers(finding, case), *_state(one), *_gates(finding, verdict, policy)]
        parts.append("\n".join(_text(one, steps)))
    return "\n\n".join(parts)
