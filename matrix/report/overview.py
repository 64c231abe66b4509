"""Tables about the whole matrix: its map, its gates, the estimates, the bundles, and what the marks mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from matrix.bundle import Evidence
from matrix.catalog import METRICS, VARIANTS
from matrix.cell import Cell, Suite, Workload
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
class _Variants:
    """One row of the map: the variants whose numbers it sums up."""

    title: str
    variants: frozenset[tuple[Suite, str]]

    @property
    def suite(self) -> Suite:
        """The one suite of its variants."""
        return next(iter(self.variants))[0]

    def holds(self, cell: Cell) -> bool:
        """Whether a cell's numbers count here."""
        return (cell.suite, cell.variant) in self.variants


_WHOLE: Final[dict[Suite, str]] = {
    "response_quality": "export: response student as GGUF",
    "generation": "serve: response student by llama.cpp",
    "concurrent_load": "serve: under load",
    "quantization_schemes": "study: INT8 schemes",
    "packaging": "packaging",
}

_STACKS: Final[dict[tuple[Suite, Workload], str]] = {
    ("training_step", "intent"): "train: a step of every stack",
    ("training_step", "response"): "train: a step, response",
    ("training_quality", "intent"): "train: quality of every stack",
}


def _variants() -> list[_Variants]:
    """A row a built export and runtime; one for all stacks of a suite, all schemes, all of packaging: parts of one question."""
    built = [found for found in VARIANTS if found.missing is None]
    short = {"export_accuracy": "export", "inference_latency": "serve"}
    stacks = [
        _Variants(title, frozenset((one.suite, one.name) for one in built if (one.suite, one.workload) == key))
        for key, title in _STACKS.items()
    ]
    found = [
        _Variants(f"{short[one.suite]}: {one.title}", frozenset({(one.suite, one.name)}))
        for one in built
        if one.suite in short
    ]
    whole = [
        _Variants(title, frozenset((one.suite, one.name) for one in built if one.suite == suite))
        for suite, title in _WHOLE.items()
    ]
    return [*stacks, *found, *whole]


class Shown(NamedTuple):
    """A bundle that is shown, for which suites, and its numbers."""

    evidence: Evidence
    suites: Sequence[Suite]
    numbers: Sequence[Judged]


def _state(row: _Variants, material: Material, target: str, every: Sequence[Shown]) -> Entry:
    """What one row says of one target, of which `every` bundle is shown."""
    shown = [one for one in every if row.suite in one.suites]
    held = [judged for one in shown for judged in one.numbers if row.holds(judged.finding.cell)]
    lost = sum(one.finding.launches == 0 for one in held)
    if lost:
        return Entry("", mark="failed", hint=f"{lost} of {len(held)} numbers were never measured")
    if held:
        return Entry("", mark=worst(held), hint=f"{len(held)} numbers")
    plan = material.plan(target, row.suite)
    excluded = {item.cell.variant: item.reason for item in plan.excluded if row.holds(item.cell)}
    if len(excluded) == len(row.variants):
        return Entry("", mark="excluded", hint="; ".join(dict.fromkeys(excluded.values())))
    return Entry("", mark="invalid" if any(one.evidence.faults for one in shown) else "not measured")


def heat_map(material: Material) -> Table:
    """A row a built variant that any target measures or would, a column a target: the worst badge of its numbers."""
    shown = material.shown()
    held = {
        name: [
            Shown(one, suites, list(material.of(one).values())) for one, suites in shown if one.bundle.target == name
        ]
        for name in material.targets.target
    }
    every = [
        (variants.title, [_state(variants, material, name, found) for name, found in held.items()])
        for variants in _variants()
    ]
    rows = [(Entry(title), *states) for title, states in every if any(one.mark != "excluded" for one in states)]
    head = [f"{target.title} ({name})" for name, target in material.targets.target.items()]
    lead = (
        "Each entry is the worst state among the numbers of that variant on that target (packaging: the image and its "
        "imports). What no target measures at its profile, and what is not built yet, is listed in the plan (`matrix plan`)."
    )
    return Table("matrix", "The matrix", lead, ("Variant", *head), tuple(rows))


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


def _floor(comparison: Comparison) -> Entry:
    """What nothing can be faster than, and how far above it the range is."""
    times = comparison.above_floor
    if comparison.floor is None or times is None:
        return Entry(DASH)
    return Entry(
        show(comparison.floor, comparison.estimate.unit), f"the range takes {times[0]:.1f} to {times[1]:.1f} times it"
    )


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
                _floor(comparison),
                number(comparison.judged),
                Entry("", mark=comparison.status),
                Entry(comparison.why),
            )
        )
    lead = (
        "What the design note planned with. "
        "An estimate is never promoted: it stands beside a measurement and never in its place. A floor is the counted matrix "
        "products at the published peak of the device: nothing is faster."
    )
    return Table(
        "estimates",
        "Estimates and measurements",
        lead,
        ("Estimate", "Place", "Range", "Floor", "Measured", "Answer", "By how much, or why not"),
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
