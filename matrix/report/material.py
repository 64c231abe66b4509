"""What a report is made of, and what of it is shown first: the newest evidence of each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.capabilities import Sized
from matrix.cell import Cell, Plan, Suite
from matrix.deployment import Choice, Deployment
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
    tools: Sequence[Sized]
    deployment: Deployment
    choices: Sequence[Choice]

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

    def shown_of(self, target: str) -> dict[str, list[Suite]]:
        """The bundles of `target` that are shown, and the suites that each is shown for: those that no newer whole one holds.

        A bundle with a fault is shown only where no whole one is. Empty when the target was never measured.
        """
        found = sorted((one for one in self.evidence if one.bundle.target == target), key=lambda one: not one.faults)
        shown: dict[str, list[Suite]] = {}
        for one in reversed(found):
            covered = [suite for suites in shown.values() for suite in suites]
            own = [suite for suite in dict.fromkeys(cell.suite for cell in one.bundle.planned) if suite not in covered]
            if own and not (one.faults and shown):
                shown[one.name] = own
        return shown

    def shown(self) -> list[tuple[Evidence, list[Suite]]]:
        """What is shown of each measured target, in the order of the targets."""
        held = {one.name: one for one in self.evidence}
        every = (self.shown_of(target) for target in self.targets.target)
        return [(held[name], suites) for of in every for name, suites in of.items()]

    def of(self, evidence: Evidence) -> dict[tuple[str, str], Judged]:
        """A bundle's judged numbers, by cell identifier and metric."""
        return {
            (one.finding.cell.id, one.finding.metric): one for one in self.judged if one.finding.bundle == evidence.name
        }

    def plan(self, target: str, suite: Suite) -> Plan:
        """The plan of `target`: by the profile of the bundle that is shown for `suite`, else of the policy's first profile."""
        shown = [one.bundle.profile for one, suites in self.shown() if one.bundle.target == target and suite in suites]
        profile = shown[0] if shown else self.case.profiles.of(self.policy.evidence.profiles[0])
        return make_plan(target, self.targets.of(target), profile)


def cells_of(evidence: Evidence, suite: str) -> list[Cell]:
    """A bundle's planned cells of one suite, in the plan's order."""
    return [cell for cell in evidence.bundle.planned if cell.suite == suite]
