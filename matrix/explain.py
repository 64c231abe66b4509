"""How one number came to be what it is, step by step: evidence, signature, launches, bounds, doubts, authorities, state, gates.

A view: it prints what judgement already found, and finds nothing itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.errors import UsageError
from matrix.findings import QUANTILES, launch_values
from matrix.gates import Case, decide, limit_of
from matrix.number import CONFIDENCE, reference_of
from matrix.policy import Policy
from matrix.quality import outputs_of
from matrix.ranks import upper_rank
from matrix.standing import isa_of
from matrix.units import DASH, show, show_interval
from matrix.verdict import PRECEDENCE, Finding, GateResult, Judged, Verdict

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
    by = ", ".join(f"{signer.role} (key {signer.key[:12]})" for signer in said.signers)
    accepts = "which is enough" if asked and asked.accepts(said.signers) else "which is not enough"
    number = f"number {said.attestation.serial} of its chain, until {said.attestation.expires[:10]}"
    yield "signature", f"{by}, {number}; the policy asks for {asked or 'nobody'}, {accepts}"


def _launches(one: Evidence, finding: Finding) -> Iterator[Step]:
    """What each launch says: values over launches for a time, counts over examples for a quality."""
    if finding.kind in {"quality", "export_delta"}:
        yield from _examples(one, finding)
        return
    measured = one.launches_of(finding.cell.id)
    yield "launches", f"measured in {len(measured)} of {len(one.bundle.launches)}"
    values = launch_values(one, finding.cell, finding.metric)
    for (index, launch), value in zip(sorted(measured.items()), values, strict=False):
        text = show(value, finding.unit)
        if q := QUANTILES.get(finding.metric):
            n, rank = len(launch.samples), upper_rank(len(launch.samples), q, CONFIDENCE)
            bound = show(sorted(launch.samples)[rank - 1], finding.unit) if rank else "none"
            text += f" of {n} samples; bound {bound}" + (
                f", the sample of rank {rank} (binomial, 95 %)" if rank else ""
            )
        yield f"launch {index}", text


def _examples(one: Evidence, finding: Finding) -> Iterator[Step]:
    ours, reference = outputs_of(one, finding.cell), reference_of(finding.cell, one.bundle.planned)
    if ours is None:
        yield "examples", "no launch kept its answers"
        return
    yield "examples", f"{int(ours.right.sum())} right of {len(ours.labels)}, instruction set {isa_of(one) or DASH}"
    if reference and reference != finding.cell and finding.notes:
        told = ", ".join(f"{name} {value:g}" for name, value in finding.notes.items())
        yield "paired", f"with {reference.variant}: {told}"


def _number(finding: Finding) -> Iterator[Step]:
    value, interval = show(finding.value, finding.unit), show_interval(finding.low, finding.high, finding.unit)
    how = "over launches" if finding.confidence != CONFIDENCE else "over examples"
    yield "number", f"{value}, 95 % interval {interval} {how}"
    low, high = show(finding.bound_low, finding.unit), show(finding.bound_high, finding.unit)
    yield "bounds", f"at least {low}, at most {high}; each at {100 * finding.confidence:.1f} %"


def _state(judged: Judged) -> Iterator[Step]:
    state = judged.state
    for reason in state.reasons:
        yield "reason", str(reason)
    yield "trust", f"{state.trust}; {state.origin}, {state.validity}, {state.freshness}"
    asked = PRECEDENCE[: PRECEDENCE.index(state.badge) + 1]
    yield "badge", " > ".join(f"{badge} {'yes' if badge == state.badge else 'no'}" for badge in asked)
    if not state.accepted:
        yield "accepted", "no: a gate may not rest on it"


def _gates(finding: Finding, verdict: Verdict, policy: Policy) -> Iterator[Step]:
    asked = [result for result in verdict.results if _about(result, finding)]
    for result in asked:
        says = (
            f"{result.answer}: bound {show(result.bound, result.unit)}, limit {limit_of(result, policy)}; {result.why}"
        )
        waived = f"; waived by {result.waived_by}" if result.waived_by else ""
        yield f"gate {result.gate}", says + waived
    if not asked:
        yield "gates", f"none of {policy.name} asks for it"


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
    yield f"{title}: {show(finding.value, finding.unit)}, {judged.state.badge}"
    for name, answer in steps:
        body = textwrap.wrap(answer, _WIDE - 24, break_long_words=False) or [""]
        yield f"  {name:<20}  {body[0]}"
        yield from (f"{'':24}{line}" for line in body[1:])


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
        steps += [*_state(one), *_gates(finding, verdict, policy)]
        parts.append("\n".join(_text(one, steps)))
    return "\n\n".join(parts)
