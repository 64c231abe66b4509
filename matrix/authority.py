"""Who speaks for a number that its own target may not: MPS by CUDA, an emulated service by the service, one CPU by another. Pure.

Each rule is of a kind of metric (matrix.compare). Every attempt counts, all comparisons with one authority are one set
(Holm), age clears no contradiction, and an absolute time is confirmed by nothing but the service that it imitates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from matrix.bundle import Evidence
from matrix.cell import Suite
from matrix.compare import RULED, Comparison, Seeded, adjusted, devices, same_time, trained
from matrix.standing import Standing
from matrix.validity import torch_minor
from matrix.verdict import Finding, Reason

_ABSOLUTE = frozenset({"time", "throughput", "memory"})
Key = tuple[str, str]
"""A number of a bundle: its cell and its metric."""


def key_of(finding: Finding) -> Key:
    """The number's key in its bundle."""
    return finding.cell.id, finding.metric


class Opinion(NamedTuple):
    """What others make of a number, why, and whether whoever confirmed it is whom the policy asks for."""

    trust: Literal["confirmed", "unconfirmed", "inconclusive", "contradicted"]
    reasons: tuple[Reason, ...]
    accepted: bool = True


class Answer(NamedTuple):
    """One comparison: an attempt's number with an authority's."""

    authority: Evidence
    attempt: Evidence
    comparison: Comparison


_REMEDIES: Final = {
    "confirmed": "nothing to do, they agree",
    "contradicted": "find what differs: only a new environment, or a signed revocation of whichever is wrong, clears it",
}
"""What to do about a comparison; of one that cannot be told each reason says what would tell it."""


def _told(answer: Answer, ours: Evidence) -> tuple[Reason, ...]:
    """A comparison's reasons: with whom, of which attempt where it is another one, and what to do now."""
    comparison = answer.comparison
    whose = "" if answer.attempt is ours else f" (of the attempt {answer.attempt.name})"
    return tuple(
        reason.model_copy(
            update={
                "number": f"{reason.number}, beside {answer.authority.name}{whose}",
                "remedy": _REMEDIES.get(comparison.answer, reason.remedy),
            }
        )
        for reason in comparison.reasons
    )


class Authorities:
    """Asks the authorities about the numbers of a bundle."""

    def __init__(self, standing: Standing) -> None:
        self.standing, self.margins = standing, standing.policy.margins

    def opinions(self, ours: Evidence) -> dict[Key, Opinion]:
        """What is said of each number that another's word could confirm; numbers that nothing can confirm are left out."""
        asked = [f for f in self.standing.findings[ours.name] if self._confirmable(ours, f)]
        told = self._answers(ours, asked)
        return {key_of(one): self._opinion(ours, one.cell.suite, told.get(key_of(one), [])) for one in asked}

    def _confirmable(self, ours: Evidence, finding: Finding) -> bool:
        target = self.standing.target(ours)
        if target is None or finding.kind not in target.confirmed_by or self.standing.speaks(ours, finding):
            return False
        return finding.metric in RULED or (finding.kind in _ABSOLUTE and finding.kind in target.emulates)

    def _answers(self, ours: Evidence, asked: list[Finding]) -> dict[Key, list[Answer]]:
        """Every comparison of every attempt with every authority; those of one pair of bundles are one set."""
        sets: dict[tuple[str, str], dict[Key, Answer]] = {}
        for finding in asked:
            for authority in self.authorities(ours, finding):
                for attempt in self._attempts(ours, finding):
                    if found := self._compare(attempt, authority, finding):
                        answer = Answer(authority, attempt, found)
                        sets.setdefault((authority.name, attempt.name), {})[key_of(finding)] = answer
        told: dict[Key, list[Answer]] = {}
        for _, answers in sorted(sets.items()):
            for key, comparison in adjusted({key: one.comparison for key, one in answers.items()}).items():
                told.setdefault(key, []).append(answers[key]._replace(comparison=comparison))
        return told

    def _opinion(self, ours: Evidence, suite: Suite, answers: list[Answer]) -> Opinion:
        """A contradiction of any attempt, by an authority of any age; else what fresh authorities say of this bundle."""
        against = [one for one in answers if one.comparison.answer == "contradicted"]
        if against:
            return Opinion("contradicted", tuple(reason for one in against for reason in _told(one, ours)))
        mine = [one for one in answers if one.attempt is ours and not self.standing.stale(one.authority, suite)]
        agreeing = [one for one in mine if one.comparison.answer == "confirmed"]
        if agreeing:
            best = max(agreeing, key=lambda one: self.standing.accepted(one.authority))
            return Opinion("confirmed", _told(best, ours), self.standing.accepted(best.authority))
        if mine:
            return Opinion("inconclusive", tuple(reason for one in mine for reason in _told(one, ours)))
        return Opinion("unconfirmed", (self._nobody(ours),))

    def _nobody(self, ours: Evidence) -> Reason:
        target = self.standing.target(ours)
        groups = sorted({group for several in target.confirmed_by.values() for group in several}) if target else []
        names = " or ".join("CUDA" if group == "cuda" else group for group in groups)
        return Reason(
            rule="authority",
            number=f"no fresh {names} bundle of this workload, from another host and signed in another role",
            threshold="at least one",
            remedy="measure it there (`matrix run`, same data and profile, --student this checkpoint)",
        )

    def authorities(self, ours: Evidence, finding: Finding) -> Iterator[Evidence]:
        """Bundles that speak for `finding`, whose own number of it is beyond doubt."""
        target = self.standing.target(ours)
        groups = target.confirmed_by.get(finding.kind, ()) if target else ()
        for other in self.standing.evidence:
            theirs = self.standing.target(other)
            if theirs is None or theirs.group not in groups or not self.standing.counts(other):
                continue
            if self._independent(ours, other) and any(
                self._vouches(ours, finding, other, one) for one in self.standing.findings[other.name]
            ):
                yield other

    def _vouches(self, ours: Evidence, finding: Finding, other: Evidence, theirs: Finding) -> bool:
        """Whether another bundle's number is of the same work, and beyond doubt itself."""
        if key_of(theirs) != key_of(finding) or not self._alike(ours, finding, other, theirs):
            return False
        sound = not (theirs.faults or theirs.doubts or self.standing.lacking(theirs))
        return sound and self.standing.speaks(other, theirs)

    def _alike(self, ours: Evidence, finding: Finding, other: Evidence, theirs: Finding) -> bool:
        """Whether two numbers are of the same work; students that were trained here are alike but for their seeds."""
        if finding.kind == "trained":
            return self.standing.families[ours.name] == self.standing.families[other.name]
        return theirs.workload_id == finding.workload_id

    def _independent(self, ours: Evidence, other: Evidence) -> bool:
        """Another host, another role of its signers, and the same torch."""
        roles = [{signer.role for signer in self.standing.signers(one)} for one in (ours, other)]
        apart = other.bundle.host_instance != ours.bundle.host_instance and not roles[0] & roles[1]
        return apart and torch_minor(ours) == torch_minor(other)

    def _attempts(self, ours: Evidence, finding: Finding) -> Iterator[Evidence]:
        """This bundle and every other attempt on the same workload in the same environment: none may be left out."""
        for other in self.standing.evidence:
            if other is ours or (
                self._same_place(ours, other)
                and any(one.workload_id == finding.workload_id for one in self.standing.findings[other.name])
            ):
                yield other

    def _same_place(self, ours: Evidence, other: Evidence) -> bool:
        places = [(one.bundle.target, one.bundle.environment_id) for one in (ours, other)]
        return places[0] == places[1] and self.standing.counts(other)

    def _compare(self, attempt: Evidence, authority: Evidence, finding: Finding) -> Comparison | None:
        if finding.kind == "trained":
            return trained(self._seeded(attempt), self._seeded(authority), self.margins)
        if finding.kind in _ABSOLUTE:
            return same_time(finding, attempt, authority, self.margins)
        return devices(finding, attempt, authority, self.margins)

    def _seeded(self, one: Evidence) -> list[Seeded]:
        """The students of every seed that were trained as this bundle's was, in its environment: of several the worst."""
        found: dict[int, Seeded] = {}
        for other in self.standing.evidence:
            training = other.bundle.prepared.training
            same = self.standing.families[other.name] == self.standing.families[one.name]
            if training and training.seed is not None and same and self._same_place(one, other):
                more = Seeded(training.seed, training.student_accuracy, training.first_losses)
                found[more.seed] = min(found.get(more.seed, more), more, key=lambda student: student.accuracy)
        return [found[seed] for seed in sorted(found)]
