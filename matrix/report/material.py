"""What a report is made of, and what of it is shown first: the newest bundle of each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.cell import Cell, Plan
from matrix.estimates import Comparison
from matrix.gates import Case
from matrix.plan import make_plan
from matrix.policy import Policy
from matrix.provenance import Ledger
from matrix.target import Targets
from matrix.verdict import Judged, Verdict


@dataclass(frozen=True)
class Material:
    """Everything that a report shows: a case, and what judgement made of it."""

    case: Case
    judged: Sequence[Judged]
    verdict: Verdict
    estimates: Sequence[Comparison]
    policy: Policy

    @property
    def evidence(self) -> list[Evidence]:
        """Every bundle that could be read, by age."""
        return sorted(self.case.evidence, key=lambda one: (one.bundle.created, one.name))

    @property
    def ledger(self) -> Ledger:
        """What the signatures come to."""
        return self.case.ledger

    @property
    def targets(self) -> Targets:
        """Every target, in the order of the report's rows."""
        return self.case.targets

    def newest(self, target: str) -> Evidence | None:
        """The last bundle of `target` that is whole, else the last one; None when it was never measured."""
        found = sorted((one for one in self.evidence if one.bundle.target == target), key=lambda one: not one.faults)
        return found[-1] if found else None

    def shown(self) -> list[Evidence]:
        """The newest bundle of each measured target, in the order of the targets."""
        return [one for name in self.targets.target if (one := self.newest(name)) is not None]

    def of(self, evidence: Evidence) -> dict[tuple[str, str], Judged]:
        """A bundle's judged numbers, by cell identifier and metric."""
        return {
            (one.finding.cell.id, one.finding.metric): one for one in self.judged if one.finding.bundle == evidence.name
        }

    def plan(self, target: str) -> Plan:
        """The plan of `target`: of its newest bundle's profile, or of the policy's first profile when never measured."""
        newest = self.newest(target)
        profile = newest.bundle.profile if newest else self.case.profiles.of(self.policy.evidence.profiles[0])
        return make_plan(target, self.targets.of(target), profile)


def cells_of(evidence: Evidence, suite: str) -> list[Cell]:
    """A bundle's planned cells of one suite, in the plan's order."""
    return [cell for cell in evidence.bundle.planned if cell.suite == suite]
