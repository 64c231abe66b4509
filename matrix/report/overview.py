"""Tables about the whole matrix: its map, its gates, the estimates, the bundles, and what the marks mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.catalog import METRICS, VARIANTS
from matrix.cell import Cell, Plan
from matrix.estimates import Comparison
from matrix.gates import limit_of
from matrix.policy import Policy
from matrix.report import ledger
from matrix.report.badges import MARKS, mark_of, worst
from matrix.report.material import Material
from matrix.report.tables import Entry, Table, number
from matrix.units import DASH, show, show_interval
from matrix.verdict import GateResult, Judged, State


@dataclass(frozen=True)
class _Column:
    """One column of the map: the variants whose numbers it sums up."""

    title: str
    variants: frozenset[tuple[str, str]]

    def holds(self, cell: Cell) -> bool:
        """Whether a cell's numbers count here."""
        return (cell.suite, cell.variant) in self.variants


def _columns() -> list[_Column]:
    """A column a built variant; one for all of packaging, whose imports are parts of one question."""
    built = [found for found in VARIANTS if found.missing is None]
    short = {"training_step": "train", "export_accuracy": "export", "inference_latency": "serve"}
    found = [
        _Column(f"{short[one.suite]}: {one.title}", frozenset({(one.suite, one.name)}))
        for one in built
        if one.suite in short
    ]
    packaging = frozenset((one.suite, one.name) for one in built if one.suite not in short)
    return [*found, _Column("packaging", packaging)]


def _state(column: _Column, evidence: Evidence | None, held: list[Judged], plan: Plan) -> Entry:
    """What one column says of one target."""
    excluded = {item.cell.variant: item.reason for item in plan.excluded if column.holds(item.cell)}
    lost = sum(one.finding.launches == 0 for one in held)
    if lost:
        return Entry("", mark="failed", hint=f"{lost} of {len(held)} numbers were never measured")
    if held:
        return Entry("", mark=worst(held), hint=f"{len(held)} numbers")
    if len(excluded) == len(column.variants):
        return Entry("", mark="excluded", hint="; ".join(dict.fromkeys(excluded.values())))
    return Entry("", mark="invalid" if evidence and evidence.faults else "not measured")


def heat_map(material: Material) -> Table:
    """A row a target, a column a built variant: the worst badge of its numbers, as glyph and word."""
    columns = _columns()
    rows = []
    for name, target in material.targets.target.items():
        evidence, plan = material.newest(name), material.plan(name)
        numbers = list(material.of(evidence).values()) if evidence else []
        entries = [
            _state(column, evidence, [one for one in numbers if column.holds(one.finding.cell)], plan)
            for column in columns
        ]
        rows.append((Entry(target.title, name), *entries))
    head = ("Target", *(column.title for column in columns))
    lead = (
        "Each entry is the worst state among the numbers of that variant on that target (packaging: the image and its "
        "imports); what is not built yet is listed in the plan (`matrix plan`)."
    )
    return Table("matrix", "The matrix", lead, head, tuple(rows))


def _result(result: GateResult, states: Mapping[tuple[str, str, str], State], policy: Policy) -> tuple[Entry, ...]:
    state = states.get((result.bundle or "", result.cell, result.metric))
    mark = mark_of(state) if state and state.badge == result.badge else result.badge
    return (
        Entry(result.gate),
        Entry(result.cell.split("/", 2)[2], result.target),
        Entry(show(result.bound, result.unit), METRICS[result.metric].title, mark),
        Entry(limit_of(result, policy)),
        Entry("", f"waived by {result.waived_by}" if result.waived_by else "", result.answer),
        Entry(result.why),
    )


def gates(material: Material) -> Table:
    """Every requirement of the policy, a waived one with its answer as it is."""
    states = {(one.finding.bundle, one.finding.cell.id, one.finding.metric): one.state for one in material.judged}
    rows = tuple(_result(result, states, material.policy) for result in material.verdict.results)
    lead = (
        "Judged on the bound, never on the value: "
        "pass needs the unfavourable bound of a believed number on the right side of the limit."
    )
    if material.verdict.invalid:
        lead = f"The evidence is invalid, and no answer of these counts. {lead}"
    return Table("gates", "Gates", lead, ("Gate", "Cell", "Bound", "Limit", "Answer", "Why"), rows)


def _range(comparison: Comparison) -> str:
    estimate = comparison.estimate
    if estimate.low == estimate.high:
        return show(estimate.low, estimate.unit)
    return show_interval(estimate.low, estimate.high, estimate.unit)


def estimates(material: Material) -> Table:
    """Planning estimates beside measurements."""
    rows = []
    for comparison in material.estimates:
        estimate, place = comparison.estimate, comparison.estimate.place
        where = f"{place.target}: {place.variant}" if place else DASH
        rows.append(
            (
                Entry(estimate.what, f"{estimate.section}: {estimate.assumption}"),
                Entry(where),
                Entry(_range(comparison)),
                number(comparison.judged),
                Entry("", mark=comparison.status),
                Entry(comparison.why),
            )
        )
    lead = (
        "What the design note planned with. "
        "An estimate is never promoted: it stands beside a measurement and never in its place."
    )
    return Table(
        "estimates",
        "Estimates and measurements",
        lead,
        ("Estimate", "Place", "Range", "Measured", "Answer", "By how much, or why not"),
        tuple(rows),
    )


def bundles(material: Material) -> Table:
    """Every bundle that was read, newest first, and those that could not be."""
    rows: list[tuple[Entry, ...]] = []
    for one in reversed(material.evidence):
        bundle = one.bundle
        held = [judged for judged in material.judged if judged.finding.bundle == one.name]
        mark = worst(held) if held else "invalid"
        lost = sum(outcome.state != "measured" for launch in bundle.launches for outcome in launch.outcomes)
        rows.append(
            (
                Entry(one.name, hint="; ".join(one.faults)),
                Entry(bundle.created[:16].replace("T", " "), bundle.profile.name),
                Entry(bundle.executor),
                Entry(str(bundle.attempt)),
                Entry(
                    f"{len(bundle.planned)} cells, {len(bundle.launches)} launches",
                    f"{lost} measurements lost" if lost else "",
                ),
                ledger.signed(material, one),
                Entry("", ledger.revoked(material, one.name) or "; ".join(one.faults[:1]), mark, "; ".join(one.faults)),
            )
        )
    rows += [(Entry(torn), *[Entry(DASH)] * 5, Entry("", mark="invalid")) for torn in material.case.torn]
    lead = "The worst state of each bundle's numbers. Every attempt counts: a gate takes the worst fresh one."
    return Table(
        "bundles",
        "Bundles",
        lead,
        ("Bundle", "Measured (UTC)", "Executor", "Attempt", "Holds", "Signed by", "Worst state"),
        tuple(rows),
    )


def legend() -> Table:
    """What each mark means."""
    rows = tuple((Entry("", mark=name), Entry(mark.meaning)) for name, mark in MARKS.items())
    return Table("legend", "What the marks mean", "", ("Mark", "Meaning"), rows)
