"""The report for machines: verdict, bundles, ledger, every judged number with its reasons. JSON, sorted keys, no NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from matrix.bundle import Evidence
from matrix.deployment import Choice, sentence
from matrix.gates import idle
from matrix.provenance import Granted, Signer
from matrix.report.material import Material
from matrix.schemes import PERPLEXITIES, SIZES, SOURCE, SUITE, compared
from matrix.validity import withdrawals
from matrix.verdict import Judged


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(judged: Judged) -> dict[str, Any]:
    finding = judged.finding
    ends = ("value", "low", "high", "bound_low", "bound_high")
    same = (
        "target",
        "metric",
        "kind",
        "unit",
        "confidence",
        "launches",
        "samples",
        "workload_id",
        "bundle",
        "profile",
        "subject",
    )
    return {
        "cell": finding.cell.id,
        **{name: getattr(finding, name) for name in same},
        **{name: _finite(getattr(finding, name)) for name in ends},
        "notes": {key: _finite(value) for key, value in finding.notes.items()},
        "state": judged.state.model_dump(mode="json"),
    }


def _signers(signers: Sequence[Signer]) -> list[dict[str, str]]:
    return [{"key": one.key, "role": one.role} for one in signers]


def _bundle(material: Material, evidence: Evidence) -> dict[str, Any]:
    """Who vouches for a bundle, whether the policy accepts them, and whether it was revoked."""
    said, asked = material.ledger.vouched.get(evidence.name), material.policy.signatures.of(evidence.bundle.target)
    revoked = withdrawals(material.ledger, material.policy).get(evidence.name)
    return {
        "name": evidence.name,
        "target": evidence.bundle.target,
        "created": evidence.bundle.created,
        "faults": list(evidence.faults),
        "signers": _signers(said.signers if said else ()),
        "number": said.attestation.serial if said else None,
        "expires": said.attestation.expires if said else None,
        "refused": material.ledger.refused.get(evidence.name),
        "accepted": bool(said and asked and asked.accepts(said.signers)),
        "revoked": revoked.number if revoked else None,
    }


def _ledger(material: Material) -> dict[str, Any]:
    """Ends of the chains, what is missing, and what was withdrawn; `counts` where the policy accepts who signed it."""
    ledger, asked = material.ledger, material.policy.signatures.revocation
    return {
        "heads": {key: head.model_dump() for key, head in ledger.heads.items()},
        "faults": list(ledger.faults),
        "gaps": dict(ledger.gaps),
        "revocations": [
            {
                "bundle": one.revocation.bundle,
                "created": one.revocation.created,
                "why": one.revocation.why,
                "signers": _signers(one.signers),
                "counts": asked.accepts(one.signers),
            }
            for one in ledger.withdrawn
        ],
    }


def _waiver(material: Material, granted: Granted) -> dict[str, Any]:
    """A waiver; `idle` says why it does not hold today (None: it holds), `used` how many answers it passes over."""
    used = sum(result.waived_by == granted.waiver.name for result in material.verdict.results)
    why_not = idle(granted, material.policy, material.case.today)
    return {**granted.waiver.model_dump(), "signers": _signers(granted.signers), "idle": why_not, "used": used}


def _choice(choice: Choice) -> dict[str, Any]:
    """A traffic, its answer (None: nothing believed keeps its promises), and what each option is for it."""
    same = ("answer", "why", "instances", "cold_share", "cold_s", "p95_s", "month", "believed")
    return {
        "traffic": choice.traffic.model_dump(),
        "chosen": choice.chosen.option.title if choice.chosen else None,
        "says": sentence(choice),
        "offers": [
            {
                **one.option.model_dump(),
                **{name: getattr(one, name) for name in same},
                "rests_on": [[n.finding.bundle, n.finding.cell.id, n.finding.metric] for n in one.rests_on],
            }
            for one in choice.offers
        ],
    }


def _study(evidence: Evidence) -> dict[str, Any]:
    """The steps of the lecture's ordering of quantisation schemes, and what a bundle says of each."""
    steps = [
        {
            "claim": one.step.claim,
            "lower": one.step.lower,
            "higher": one.step.higher,
            "paper": one.paper,
            "matrices": {metric: vars(found) for metric, found in one.matrices.items()},
            "student": vars(one.student),
            "says": one.sentence,
        }
        for one in compared(evidence)
    ]
    return {"bundle": evidence.name, "target": evidence.bundle.target, "steps": steps}


def render(material: Material) -> str:
    """The report as JSON text."""
    facts = {
        "made": material.case.today.now.isoformat(timespec="seconds"),
        "verdict": material.verdict.model_dump(mode="json"),
        "bundles": [_bundle(material, one) for one in material.evidence],
        "ledger": _ledger(material),
        "waivers": [_waiver(material, one) for one in material.ledger.granted],
        "numbers": [_number(one) for one in material.judged],
        "schemes": {
            "source": SOURCE,
            "perplexities": {name: dict(zip(SIZES, row, strict=True)) for name, row in PERPLEXITIES.items()},
            "bundles": [_study(one) for one, suites in material.shown() if not one.faults and SUITE in suites],
        },
        "deployment": [_choice(one) for one in material.choices],
        "estimates": [
            {
                **one.estimate.model_dump(mode="json"),
                "status": one.status,
                "why": one.why,
                "floor_value": one.floor,
                "measured": _number(one.judged) if one.judged else None,
            }
            for one in material.estimates
        ],
    }
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n"
