"""How a bundle stands before any of its numbers is looked at: valid, fresh, revoked, signed by whom. Pure.

Everything that makes a whole bundle no evidence is here, each as a reason with its number and its remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from matrix.bundle import Evidence
from matrix.findings import family, findings_of
from matrix.policy import Policy
from matrix.provenance import Ledger, Signer
from matrix.ranks import least_samples
from matrix.sample import Environment, LaunchRecord
from matrix.target import Target, Targets
from matrix.verdict import Finding, Reason

_CLOCK_SKEW = timedelta(minutes=10)
_LAUNCHED = frozenset({"time", "throughput", "memory", "ratio"})
"""Kinds whose uncertainty is over launches, so that too few of them prove nothing."""

QUANTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}
"""They have no upper bound before there are enough samples."""


@dataclass(frozen=True)
class Today:
    """When judgement happens, and the suites' digest of the code that judges (None: not compared)."""

    now: datetime
    suite_sha256: str | None


def _age(evidence: Evidence, today: Today) -> timedelta:
    return today.now.astimezone(UTC) - datetime.fromisoformat(evidence.bundle.created)


def _of_files(evidence: Evidence) -> Iterator[Reason]:
    for fault in evidence.faults:
        yield Reason(
            rule="integrity",
            number=fault,
            threshold="every file as sealed",
            remedy="restore the bundle or measure again",
        )


def _of_source(evidence: Evidence) -> Iterator[Reason]:
    source = evidence.bundle.source
    if source.commit is None:
        yield Reason(
            rule="source", number="no commit is known", threshold="a commit", remedy="measure from a git checkout"
        )
    if source.dirty:
        named = ", ".join(source.dirty[:3])
        yield Reason(
            rule="dirty tree",
            number=f"uncommitted: {named}",
            threshold="a clean tree",
            remedy="commit, then measure again",
        )


def _told(record: LaunchRecord) -> bool:
    """Whether a launch lived to say what it is; whoever measured something did."""
    return record.environment is not None or any(outcome.state == "measured" for outcome in record.outcomes)


def _of_canaries(evidence: Evidence, target: Target | None) -> Iterator[Reason]:
    """One wrong answer of the device, in any launch, and nothing that it measured counts."""
    if target and target.serves_only:
        return  # a function has no torch, and its answers are the suites' to check
    for record in filter(_told, evidence.bundle.launches):
        where = f"launch {record.index}"
        if record.battery is None or not record.battery.canaries:
            yield Reason(rule="canary", number=f"{where} asked none", threshold="every canary", remedy="measure again")
            continue
        if target and record.battery.device != target.device:
            seen = f"{where} asked {record.battery.device}"
            yield Reason(rule="canary", number=seen, threshold=target.device, remedy="measure again")
        for canary in record.battery.canaries:
            if not canary.passed:
                yield Reason(
                    rule="canary",
                    number=f"{where}: {canary.name} errs by {canary.error}"
                    + (f" ({canary.detail.strip().splitlines()[-1]})" if canary.detail.strip() else ""),
                    threshold=f"at most {canary.limit:g}",
                    remedy="this device computes wrong: report it to its maker, and do not ship to it",
                )


def _of_host(evidence: Evidence, target: Target | None) -> Iterator[Reason]:
    for record in evidence.bundle.launches:
        if target and record.host and (other := record.host.differs(target.expect)):
            yield Reason(
                rule="host",
                number=f"launch {record.index}: {' and '.join(other)}",
                threshold=f"a host that is {target.title}",
                remedy="measure the machine that it is",
            )
        if record.foreign_gpu:
            yield Reason(
                rule="foreign GPU process",
                number=f"launch {record.index} shared its GPU with {', '.join(record.foreign_gpu)}",
                threshold="none",
                remedy="stop it, then measure again",
            )
        if target and target.expect.bare_metal and record.host and record.host.virtual is not False:
            yield Reason(
                rule="virtual machine",
                number=f"launch {record.index} ran on a virtual machine, or one that does not tell",
                threshold="bare metal",
                remedy="a virtual Mac has no Metal of its own: measure a real one",
            )
        if _told(record) and record.nonce != evidence.bundle.nonce:
            yield Reason(
                rule="nonce",
                number=f"launch {record.index} belongs to another run",
                threshold="the nonce of this run",
                remedy="measure again",
            )


def faults_of(evidence: Evidence, today: Today, ledger: Ledger, target: Target | None) -> list[Reason]:
    """What makes a whole bundle invalid."""
    found = [*_of_files(evidence), *_of_source(evidence), *_of_canaries(evidence, target), *_of_host(evidence, target)]
    if evidence.name not in ledger.vouched:
        found.append(
            Reason(
                rule="signature",
                number=ledger.refused.get(evidence.name, "nobody signed it"),
                threshold="a signature by a key that is trusted here",
                remedy="import its key (`matrix keys trust`), or measure it with yours",
            )
        )
    if _age(evidence, today) < -_CLOCK_SKEW:
        found.append(
            Reason(
                rule="clock skew",
                number=evidence.bundle.created,
                threshold="not in the future",
                remedy="set the host's clock",
            )
        )
    return found


STALE = frozenset({"age", "expired", "suites changed", "environment changed"})
"""The rules of staleness."""


def staleness_of(evidence: Evidence, today: Today, ledger: Ledger, days: float) -> list[Reason]:
    """What makes a whole bundle stale."""
    found, age = [], _age(evidence, today)
    if age > timedelta(days=days):
        seen = f"{age.total_seconds() / 86_400:.1f} days old"
        found.append(Reason(rule="age", number=seen, threshold=f"at most {days:g} days", remedy="measure again"))
    said = ledger.vouched.get(evidence.name)
    if said and today.now.astimezone(UTC) > datetime.fromisoformat(said.attestation.expires):
        ends = f"its signers stand by it until {said.attestation.expires[:10]}"
        found.append(Reason(rule="expired", number=ends, threshold="today", remedy="measure again"))
    if today.suite_sha256 not in (None, evidence.bundle.source.suite_sha256):
        seen = f"suites {evidence.bundle.source.suite_sha256[:12]}"
        now = f"{(today.suite_sha256 or '')[:12]} now"
        found.append(
            Reason(rule="suites changed", number=seen, threshold=now, remedy="measure again with this version")
        )
    return found


def broken(ledger: Ledger, policy: Policy) -> list[str]:
    """What is gone from the chains without having been revoked, and where they break: then no number of the store counts.

    What is missing may be what contradicts the rest.
    """
    revoked, remedy = withdrawals(ledger, policy), "restore it, or have it revoked (`matrix revoke`)"
    gone = [f"{gap}; {remedy}" for name, gap in sorted(ledger.gaps.items()) if name not in revoked]
    return [*gone, *ledger.faults]


def _lost(fault: str) -> Reason:
    remedy = "mend the ledger: what is missing may be what contradicts this number"
    return Reason(rule="ledger", number=fault, threshold="every statement of every chain", remedy=remedy)


def withdrawals(ledger: Ledger, policy: Policy) -> dict[str, Reason]:
    """Bundles that were revoked by those who may, by name."""
    asked = policy.signatures.revocation
    return {
        one.revocation.bundle: Reason(
            rule="revoked",
            number=f"{one.revocation.why}, says {', '.join(signer.role for signer in one.signers)}",
            threshold="a bundle that nobody withdrew",
            remedy="measure again",
        )
        for one in ledger.withdrawn
        if asked.accepts(one.signers)
    }


def torch_minor(evidence: Evidence) -> str | None:
    """Major and minor version of the bundle's torch; None where no launch told, or a function has none."""
    for record in evidence.bundle.launches:
        version = record.environment.packages.get("torch") if record.environment else None
        if version:
            return ".".join(version.split(".")[:2])
    return None


def isa_of(evidence: Evidence) -> str | None:
    """The class of instruction set that the bundle was measured on; None where no launch told."""
    return next((record.host.isa for record in evidence.bundle.launches if record.host), None)


def _lack(number: str, threshold: str, remedy: str) -> list[Reason]:
    return [Reason(rule="minimum", number=number, threshold=threshold, remedy=remedy)]


def minimum(finding: Finding, policy: Policy, confidence: float) -> list[Reason]:
    """What a number lacks to be trusted on its own target."""
    if finding.kind in _LAUNCHED and finding.launches < policy.evidence.min_launches:
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


def _software(one: Evidence) -> tuple[Environment, str | None] | None:
    """The first launch's environment and driver; None where none told."""
    told = ((record.environment, record.host) for record in one.bundle.launches)
    return next(((software, host.driver) for software, host in told if software and host), None)


def _changes(one: Evidence, later: Evidence) -> str | None:
    """What of a machine's software differs between two bundles of it; None where nothing does."""
    before, now = _software(one), _software(later)
    if before is None or now is None or before == now:
        return None
    old, new = before[0].packages, now[0].packages
    found = [f"{name} {old.get(name)}" for name in new if old.get(name) != new[name]]
    found += [before[0].system] if before[0].system != now[0].system else []
    found += [f"driver {before[1]}"] if before[1] != now[1] else []
    return f"measured with {', '.join(found[:3]) or 'other packages or variables'}"


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
        lost = [_lost(fault) for fault in broken(ledger, rules.policy)]
        self.faults = {
            one.name: [*faults_of(one, rules.today, ledger, self.target(one)), *lost] for one in self.evidence
        }
        self.stale = {one.name: staleness_of(one, rules.today, ledger, rules.days) for one in self.evidence}
        for one in self.evidence:
            self.stale[one.name] += self._superseded(one)
        self.families = {one.name: family(one.bundle) for one in self.evidence}

    def _superseded(self, one: Evidence) -> list[Reason]:
        """Why the machine is no longer what it was: a later bundle of it, whole and sound, has another environment or driver.

        A failed attempt supersedes nothing, nor does another way to run the target.
        """
        later = [
            other for other in self.evidence if _follows(other, one) and self.counts(other) and _is_complete(other)
        ]
        if not later or (changed := _changes(one, later[-1])) is None:
            return []
        remedy = "measure again in the environment that ships"
        return [
            Reason(rule="environment changed", number=changed, threshold=f"as {later[-1].name} has it", remedy=remedy)
        ]

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
