"""What makes a whole bundle no evidence, or old: files, source, canaries, host, signature, ledger, age. Pure.

Each is a reason with its number, its threshold and its remedy; none looks at what the bundle measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from matrix.bundle import Evidence
from matrix.cell import Suite
from matrix.policy import Policy
from matrix.provenance import Ledger
from matrix.sample import Environment, LaunchRecord
from matrix.target import Target
from matrix.verdict import Reason

_CLOCK_SKEW = timedelta(minutes=10)


@dataclass(frozen=True)
class Today:
    """When judgement happens, and each suite's digest in the code that judges (None: not compared)."""

    now: datetime
    suites: Mapping[Suite, str] | None


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
    """What makes a whole bundle stale, whatever it measured."""
    found, age = [], _age(evidence, today)
    if age > timedelta(days=days):
        seen = f"{age.total_seconds() / 86_400:.1f} days old"
        found.append(Reason(rule="age", number=seen, threshold=f"at most {days:g} days", remedy="measure again"))
    said = ledger.vouched.get(evidence.name)
    if said and today.now.astimezone(UTC) > datetime.fromisoformat(said.attestation.expires):
        ends = f"its signers stand by it until {said.attestation.expires[:10]}"
        found.append(Reason(rule="expired", number=ends, threshold="today", remedy="measure again"))
    return found


def changed_suite(evidence: Evidence, suite: Suite, today: Today) -> list[Reason]:
    """What makes a bundle's numbers of one suite stale: what decided them is no longer what decides them here."""
    if today.suites is None:
        return []
    then, now = evidence.bundle.source.suites.get(suite, ""), today.suites.get(suite, "")
    if then and then == now:
        return []
    seen = f"{suite} {then[:12] or 'of an unknown state'}"
    remedy = "measure again with this version"
    return [Reason(rule="suites changed", number=seen, threshold=f"{now[:12] or 'none'} now", remedy=remedy)]


def broken(ledger: Ledger, policy: Policy) -> list[str]:
    """What is gone from the chains without having been revoked, and where they break: then no number of the store counts.

    What is missing may be what contradicts the rest.
    """
    revoked, remedy = withdrawals(ledger, policy), "restore it, or have it revoked (`matrix revoke`)"
    gone = [f"{gap}; {remedy}" for name, gap in sorted(ledger.gaps.items()) if name not in revoked]
    return [*gone, *ledger.faults]


def against_all(fault: str) -> Reason:
    """That a statement is gone, as a reason against every number of its store."""
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


def _software(one: Evidence) -> tuple[Environment, str | None] | None:
    """The first launch's environment and driver; None where none told."""
    told = ((record.environment, record.host) for record in one.bundle.launches)
    return next(((software, host.driver) for software, host in told if software and host), None)


def changes(one: Evidence, later: Evidence) -> str | None:
    """What of a machine's software differs between two bundles of it; None where nothing does."""
    before, now = _software(one), _software(later)
    if before is None or now is None or before == now:
        return None
    old, new = before[0].packages, now[0].packages
    found = [f"{name} {old.get(name)}" for name in new if old.get(name) != new[name]]
    found += [before[0].system] if before[0].system != now[0].system else []
    found += [f"driver {before[1]}"] if before[1] != now[1] else []
    return f"measured with {', '.join(found[:3]) or 'other packages or variables'}"
