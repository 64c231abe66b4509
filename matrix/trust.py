"""What may be thought of each number today: a pure function of bundles, ledger, definitions, policy and the date.

States are derived and never stored. Contradiction beats any number of confirmations; every attempt counts; what nobody who is
trusted signed is shown, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrix.authority import Authorities, Key, Opinion, key_of
from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.provenance import Ledger
from matrix.standing import Rules, Standing
from matrix.verdict import PRECEDENCE, Badge, Finding, Judged, Reason, State, Trust


class Judge:
    """Judges every number of a set of bundles."""

    def __init__(self, evidence: Sequence[Evidence], ledger: Ledger, rules: Rules) -> None:
        self.standing = Standing(evidence, ledger, rules)
        self.authorities = Authorities(self.standing)

    def judged(self) -> list[Judged]:
        """Every number with its state, by age of the bundles and in the order of their plans."""
        found = []
        for one in self.standing.evidence:
            opinions = self.authorities.opinions(one)
            found += [
                Judged(finding, self._state(one, finding, opinions)) for finding in self.standing.findings[one.name]
            ]
        return found

    def _trust(self, ours: Evidence, finding: Finding, opinions: Mapping[Key, Opinion]) -> tuple[Trust, list[Reason]]:
        """What is thought of a number that was measured well: by its own target's authority, or by another's word."""
        if self.standing.speaks(ours, finding):
            lacking = self.standing.lacking(finding)
            return ("unconfirmed", lacking) if lacking else ("trusted", [])
        isa, opinion = self.standing.foreign_isa(ours, finding), opinions.get(key_of(finding))
        if opinion is None:
            seen = f"{METRICS[finding.metric].title} of {self.standing.rules.targets.of(finding.target).title}"
            remedy = "compare ratios and accuracy, or measure the target that ships"
            return "unconfirmed", [
                *isa,
                Reason(rule="local only", number=seen, threshold="never confirmed", remedy=remedy),
            ]
        lacking = self.standing.lacking(finding) if opinion.trust == "confirmed" else []
        return ("unconfirmed", lacking) if lacking else (opinion.trust, [*isa, *opinion.reasons])

    def _roles(self, ours: Evidence, opinion: Opinion | None) -> list[Reason]:
        """Why a number is not accepted whoever measured it: who signed it, or who confirmed it."""
        asked = self.standing.policy.signatures.of(ours.bundle.target)
        remedy = "measure with a key of that role (`matrix keys new --role`, `matrix run --role`)"
        found = []
        if not self.standing.accepted(ours):
            roles = ", ".join(sorted({signer.role for signer in self.standing.signers(ours)})) or "nobody"
            threshold = f"the policy accepts {asked or 'nobody'}"
            found.append(Reason(rule="role", number=f"signed by {roles}", threshold=threshold, remedy=remedy))
        if opinion and not opinion.accepted:
            number = "what confirms it is signed by nobody whom the policy asks for"
            found.append(Reason(rule="role", number=number, threshold="an accepted role", remedy=remedy))
        return found

    def _state(self, ours: Evidence, finding: Finding, opinions: Mapping[Key, Opinion]) -> State:
        """The state of one number, with every reason for it."""
        revoked, stale = self.standing.revoked.get(ours.name), self.standing.stale(ours, finding.cell.suite)
        faults = [*self.standing.faults[ours.name], *finding.faults]
        trust, why = self._trust(ours, finding, opinions)
        roles = self._roles(ours, opinions.get(key_of(finding)))
        emulated = finding.kind in self.standing.rules.targets.of(finding.target).emulates
        holds: dict[Badge, bool] = {
            "revoked": revoked is not None,
            "invalid": bool(faults),
            "contradicted": trust == "contradicted",
            "stale": bool(stale),
            "emulated": emulated and trust != "confirmed",
            "degraded": bool(finding.doubts),
            trust: True,
        }
        imitated = _imitated(finding) if holds["emulated"] else []
        return State(
            badge=next(badge for badge in PRECEDENCE if holds.get(badge)),
            origin="emulated" if emulated else "measured",
            validity="invalid" if faults else "degraded" if finding.doubts else "valid",
            trust=trust,
            freshness="stale" if stale else "fresh",
            revoked=revoked is not None,
            accepted=not roles,
            reasons=(*([revoked] if revoked else []), *faults, *why, *stale, *imitated, *finding.doubts, *roles),
        )


def _imitated(finding: Finding) -> list[Reason]:
    remedy = "measure the real service"
    return [Reason(rule="emulated", number=finding.kind, threshold="the real service", remedy=remedy)]


def judge(evidence: Sequence[Evidence], ledger: Ledger, rules: Rules) -> list[Judged]:
    """Every number of `evidence` with its state."""
    return Judge(evidence, ledger, rules).judged()
