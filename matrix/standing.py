"""How the bundles of a case stand together, before any number is judged: who counts, who signed, who speaks for what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.cell import Suite
from matrix.findings import QUANTILES, family, findings_of
from matrix.policy import Policy
from matrix.provenance import Ledger, Signer
from matrix.ranks import least_samples
from matrix.target import Target, Targets
from matrix.validity import (
    Today,
    against_all,
    broken,
    changed_suite,
    changes,
    faults_of,
    isa_of,
    staleness_of,
    withdrawals,
)
from matrix.verdict import Finding, Reason

LAUNCHED = frozenset({"time", "throughput", "memory", "ratio"})
"""Kinds whose uncertainty is over launches, so that too few of them prove nothing; their bound is the worst launch's."""


def _lack(number: str, threshold: str, remedy: str) -> list[Reason]:
    return [Reason(rule="minimum", number=number, threshold=threshold, remedy=remedy)]


def minimum(finding: Finding, policy: Policy, confidence: float) -> list[Reason]:
    """What a number lacks to be trusted on its own target."""
    if finding.kind in LAUNCHED and finding.launches < policy.evidence.min_launches:
        return _lack(f"{finding.launches} launches", f"at least {policy.evidence.min_launches}", "run more launches")
    if finding.value is None:
        q = QUANTILES.get(finding.metric)
        least = f"at least {least_samples(q, confidence)}" if q else "a value"
        remedy = "take a profile with more rounds, or see why its launches were lost"
        return _lack(f"{finding.samples} samples a launch", least, remedy)
    counted = finding.kind in {"quality", "export_delta"} and finding.confidence < 1
    if counted and finding.samples < policy.margins.min_examples:
        least = f"at least {policy.margins.min_examples}"
        return _lack(f"{finding.samples} examples", least, "evaluate on more examples")
    return []


def _follows(other: Evidence, one: Evidence) -> bool:
    """Whether `other` is a later bundle of the same target, run the same way on the same host."""
    same = ("target", "executor", "host_instance", "profile")
    alike = all(getattr(other.bundle, name) == getattr(one.bundle, name) for name in same)
    return alike and other.bundle.created > one.bundle.created


def _is_complete(one: Evidence) -> bool:
    return all(outcome.state == "measured" for record in one.bundle.launches for outcome in record.outcomes)


@dataclass(frozen=True)
class Rules:
    """What numbers are judged by: definitions, policy, the date, the age in days at which a bundle is stale, a confidence."""

    targets: Targets
    policy: Policy
    today: Today
    days: float
    confidence: float


class Standing:
    """A set of bundles, each with its faults, its age and its signers; their order does not matter."""

    def __init__(self, evidence: Sequence[Evidence], ledger: Ledger, rules: Rules) -> None:
        self.evidence = sorted(evidence, key=lambda one: (one.bundle.created, one.name))
        self.ledger, self.rules, self.policy = ledger, rules, rules.policy
        self.revoked = withdrawals(ledger, rules.policy)
        known = [one for one in self.evidence if one.bundle.target in rules.targets.target and not one.faults]
        self.findings: dict[str, list[Finding]] = {one.name: [] for one in self.evidence}
        self.findings |= {one.name: findings_of(one, rules.confidence) for one in known}
        lost = [against_all(fault) for fault in broken(ledger, rules.policy)]
        self.faults = {
            one.name: [*faults_of(one, rules.today, ledger, self.target(one)), *lost] for one in self.evidence
        }
        self._old = {one.name: staleness_of(one, rules.today, ledger, rules.days) for one in self.evidence}
        for one in self.evidence:
            self._old[one.name] += self._superseded(one)
        self.families = {one.name: family(one.bundle) for one in self.evidence}

    def _superseded(self, one: Evidence) -> list[Reason]:
        """Why the machine is no longer what it was: a later bundle of it, whole and sound, has another environment or driver.

        A failed attempt supersedes nothing, nor does another way to run the target.
        """
        later = [
            other for other in self.evidence if _follows(other, one) and self.counts(other) and _is_complete(other)
        ]
        if not later or (changed := changes(one, later[-1])) is None:
            return []
        remedy = "measure again in the environment that ships"
        return [
            Reason(rule="environment changed", number=changed, threshold=f"as {later[-1].name} has it", remedy=remedy)
        ]

    def stale(self, one: Evidence, suite: Suite) -> list[Reason]:
        """Why the bundle's numbers of a suite are of the past."""
        return [*self._old[one.name], *changed_suite(one, suite, self.rules.today)]

    def target(self, one: Evidence) -> Target | None:
        """The bundle's target; None for one that is no longer declared."""
        return self.rules.targets.target.get(one.bundle.target)

    def counts(self, one: Evidence) -> bool:
        """Whether the bundle is evidence at all."""
        return not self.faults[one.name] and one.name not in self.revoked

    def signers(self, one: Evidence) -> tuple[Signer, ...]:
        """The trusted keys that signed the bundle."""
        said = self.ledger.vouched.get(one.name)
        return said.signers if said else ()

    def accepted(self, one: Evidence) -> bool:
        """Whether those signed it whom the policy asks for."""
        asked = self.policy.signatures.of(one.bundle.target)
        return asked is not None and asked.accepts(self.signers(one))

    def foreign_isa(self, one: Evidence, finding: Finding) -> list[Reason]:
        """Why the bundle's instruction set is not the deployment's: what INT8 costs depends on it."""
        target = self.target(one)
        if target is None or target.device != "cpu" or finding.kind not in {"quality", "export_delta"}:
            return []
        asked, seen = self.policy.deployment.get(one.bundle.target), isa_of(one)
        if asked in {None, seen}:
            return []
        remedy = "measure a host like production's, or say what production has ([deployment])"
        return [Reason(rule="instruction set", number=str(seen), threshold=f"the deployment's {asked}", remedy=remedy)]

    def speaks(self, one: Evidence, finding: Finding) -> bool:
        """Whether the bundle's own target is the authority for this number of it."""
        target = self.target(one)
        return target is not None and finding.kind in target.authority and not self.foreign_isa(one, finding)

    def lacking(self, finding: Finding) -> list[Reason]:
        """What a number lacks to be believed, whoever speaks for it."""
        return minimum(finding, self.policy, self.rules.confidence)
