"""What may be thought of each number today: a pure function of bundles, definitions, policy and the date.

States are derived and never stored. Contradiction beats any number of confirmations; every attempt counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.compare import RULED, Comparison, devices
from matrix.findings import findings_of
from matrix.number import CONFIDENCE
from matrix.policy import Policy
from matrix.ranks import least_samples
from matrix.target import Target, Targets
from matrix.verdict import PRECEDENCE, Badge, Finding, Judged, Reason, State

_CLOCK_SKEW = timedelta(minutes=10)
_LAUNCHED = frozenset({"time", "throughput", "memory", "ratio"})
"""Kinds whose uncertainty is over launches, so that too few of them prove nothing."""


_LEAST = {name: f"at least {least_samples(q, CONFIDENCE)}" for name, q in (("p95_s", 0.95), ("p99_s", 0.99))}
"""Samples without which a tail quantile has no upper bound."""


@dataclass(frozen=True)
class Today:
    """When judgement happens, and the suites' digest of the code that judges (None: not compared)."""

    now: datetime
    suite_sha256: str | None


def _age(evidence: Evidence, today: Today) -> timedelta:
    return today.now.astimezone(UTC) - datetime.fromisoformat(evidence.bundle.created)


def faults_of(evidence: Evidence, today: Today) -> list[Reason]:
    """What makes a whole bundle invalid."""
    source = evidence.bundle.source
    found = [
        Reason(
            rule="integrity",
            number=fault,
            threshold="every file as sealed",
            remedy="restore the bundle or measure again",
        )
        for fault in evidence.faults
    ]
    if source.commit is None:
        found.append(
            Reason(
                rule="source", number="no commit is known", threshold="a commit", remedy="measure from a git checkout"
            )
        )
    if source.dirty:
        named = ", ".join(source.dirty[:3])
        found.append(
            Reason(
                rule="dirty tree",
                number=f"uncommitted: {named}",
                threshold="a clean tree",
                remedy="commit, then measure again",
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


STALE = frozenset({"age", "suites changed"})
"""The rules of `staleness_of`."""


def staleness_of(evidence: Evidence, today: Today, days: float) -> list[Reason]:
    """What makes a whole bundle stale."""
    found, age = [], _age(evidence, today)
    if age > timedelta(days=days):
        seen = f"{age.total_seconds() / 86_400:.1f} days old"
        found.append(Reason(rule="age", number=seen, threshold=f"at most {days:g} days", remedy="measure again"))
    if today.suite_sha256 not in (None, evidence.bundle.source.suite_sha256):
        seen = f"suites {evidence.bundle.source.suite_sha256[:12]}"
        now = f"{(today.suite_sha256 or '')[:12]} now"
        found.append(
            Reason(rule="suites changed", number=seen, threshold=now, remedy="measure again with this version")
        )
    return found


def _torch_minor(evidence: Evidence) -> str | None:
    for record in evidence.bundle.launches:
        version = record.environment.packages.get("torch") if record.environment else None
        if version:
            return ".".join(version.split(".")[:2])
    return None


def _minimum(finding: Finding, policy: Policy) -> list[Reason]:
    """What a number lacks to be trusted on its own target."""
    if finding.kind in _LAUNCHED and finding.launches < policy.evidence.min_launches:
        seen = f"{finding.launches} launches"
        return [
            Reason(
                rule="minimum",
                number=seen,
                threshold=f"at least {policy.evidence.min_launches}",
                remedy="run more launches",
            )
        ]
    if finding.value is None:
        seen = f"{finding.samples} samples a launch"
        return [
            Reason(
                rule="minimum",
                number=seen,
                threshold=_LEAST.get(finding.metric, "a value"),
                remedy="take a profile with more rounds, or see why its launches were lost",
            )
        ]
    if (
        finding.kind in {"quality", "export_delta"}
        and finding.samples < policy.margins.min_examples
        and finding.confidence < 1
    ):
        seen = f"{finding.samples} examples"
        return [
            Reason(
                rule="minimum",
                number=seen,
                threshold=f"at least {policy.margins.min_examples}",
                remedy="evaluate on more examples",
            )
        ]
    return []


class Judge:
    """Judges every number of a set of bundles under one policy at one date."""

    def __init__(
        self, evidence: Sequence[Evidence], targets: Targets, policy: Policy, today: Today, *, days: float
    ) -> None:
        self.evidence, self.targets, self.policy, self.today, self.days = evidence, targets, policy, today, days
        known = [one for one in evidence if not one.faults and one.bundle.target in targets.target]
        self._findings: dict[str, list[Finding]] = {one.name: [] for one in evidence}
        self._findings |= {one.name: findings_of(one) for one in known}
        self._standing = {one.name: (faults_of(one, today), staleness_of(one, today, days)) for one in evidence}

    def judged(self) -> list[Judged]:
        """Every number with its state, in the order of the bundles and their plans."""
        return [
            Judged(finding, self.state(one, finding)) for one in self.evidence for finding in self._findings[one.name]
        ]

    def _authorities(self, ours: Evidence, finding: Finding) -> Iterator[tuple[Evidence, bool]]:
        """Bundles that may speak for a number that its own target may not, and whether they are fresh.

        A CUDA bundle of the same workload and torch on another host, whose own number of this metric is beyond doubt.
        """
        for other in self.evidence:
            target = self.targets.target.get(other.bundle.target)
            faults, stale = self._standing[other.name]
            if target is None or target.group != "cuda" or finding.kind not in target.authority or faults:
                continue
            torch = _torch_minor(other)
            if other.bundle.host_instance == ours.bundle.host_instance or torch is None or torch != _torch_minor(ours):
                continue
            for theirs in self._findings[other.name]:
                same = (theirs.workload_id, theirs.cell, theirs.metric) == (
                    finding.workload_id,
                    finding.cell,
                    finding.metric,
                )
                if same and not (theirs.faults or theirs.doubts or _minimum(theirs, self.policy)):
                    yield other, not stale

    def _attempts(self, ours: Evidence, finding: Finding) -> Iterator[Evidence]:
        """This bundle and every other attempt on the same workload in the same environment: none may be left out."""
        for other in self.evidence:
            same = (other.bundle.target, other.bundle.environment_id) == (
                ours.bundle.target,
                ours.bundle.environment_id,
            )
            if other is ours or (
                same and any(f.workload_id == finding.workload_id for f in self._findings[other.name])
            ):
                yield other

    def _comparisons(self, ours: Evidence, finding: Finding) -> tuple[list[Comparison], list[Comparison]]:
        """What the authorities say of this bundle's number, and of the other attempts' same number."""
        mine: list[Comparison] = []
        others: list[Comparison] = []
        for authority, fresh in self._authorities(ours, finding):
            for attempt in self._attempts(ours, finding):
                found = devices(finding, attempt, authority, self.policy.margins)
                if found is not None and (fresh or found.answer == "contradicted"):  # age clears no contradiction
                    (mine if attempt is ours else others).append(found)
        return mine, others

    def _second_hand(
        self, ours: Evidence, finding: Finding
    ) -> tuple[Literal["confirmed", "unconfirmed", "inconclusive", "contradicted"], list[Reason]]:
        """Trust in a number whose target is not its authority."""
        if finding.metric not in RULED:
            seen = f"{METRICS[finding.metric].title} of {self.targets.of(finding.target).title}"
            return "unconfirmed", [
                Reason(
                    rule="local only",
                    number=seen,
                    threshold="never confirmed",
                    remedy="compare ratios and accuracy, or measure the target that ships",
                )
            ]
        mine, others = self._comparisons(ours, finding)
        against = [c for c in (*mine, *others) if c.answer == "contradicted"]
        if against:
            return "contradicted", [reason for c in against for reason in c.reasons]
        agreeing = [c for c in mine if c.answer == "confirmed"]
        if agreeing:
            return "confirmed", list(agreeing[0].reasons)
        if mine:
            return "inconclusive", [reason for c in mine for reason in c.reasons]
        remedy = "run a CUDA target on the same workload (`matrix run cuda`, same data and profile, --student this checkpoint)"
        return "unconfirmed", [
            Reason(rule="authority", number="no fresh CUDA bundle of this workload", threshold="one", remedy=remedy)
        ]

    def _trust(
        self, ours: Evidence, finding: Finding, target: Target
    ) -> tuple[Literal["trusted", "confirmed", "unconfirmed", "inconclusive", "contradicted"], list[Reason]]:
        if finding.kind not in target.authority:
            return self._second_hand(ours, finding)
        lacking = _minimum(finding, self.policy)
        return ("unconfirmed", lacking) if lacking else ("trusted", [])

    def state(self, ours: Evidence, finding: Finding) -> State:
        """The state of one number, with every reason for it."""
        target = self.targets.of(finding.target)
        faults, stale = self._standing[ours.name]
        faults = [*faults, *finding.faults]
        trust, why = self._trust(ours, finding, target)
        emulated = finding.kind in target.emulates
        holds: dict[Badge, bool] = {
            "invalid": bool(faults),
            "contradicted": trust == "contradicted",
            "stale": bool(stale),
            "emulated": emulated,
            "degraded": bool(finding.doubts),
            trust: True,
        }
        imitated = Reason(
            rule="emulated", number=finding.kind, threshold="the real service", remedy="measure the real service"
        )
        return State(
            badge=next(badge for badge in PRECEDENCE if holds.get(badge)),
            origin="emulated" if emulated else "measured",
            validity="invalid" if faults else "degraded" if finding.doubts else "valid",
            trust=trust,
            freshness="stale" if stale else "fresh",
            reasons=(*faults, *why, *stale, *([imitated] if emulated else []), *finding.doubts),
        )


def judge(evidence: Sequence[Evidence], targets: Targets, policy: Policy, today: Today, *, days: float) -> list[Judged]:
    """Every number of `evidence` with its state; `days` is the age after which it is stale."""
    return Judge(evidence, targets, policy, today, days=days).judged()
