"""The report's order: verdict, matrix, suites a target, estimates, evidence, how to reproduce. Data for every view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.cell import Suite
from matrix.gates import sentence
from matrix.report import figures, functions, overview, packaging, provenance, tables
from matrix.report.figures import Figure
from matrix.report.material import Material, cells_of
from matrix.report.tables import Numbers, Table


@dataclass(frozen=True)
class Section:
    """A part of the report; its figures come before its tables. `commands` are shown as a block of shell lines."""

    id: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    answer: str
    sentence: str
    made: str
    policy: str
    sections: tuple[Section, ...]


def _suites(material: Material, evidence: Evidence) -> list[Section]:
    """The suites of one measured target: those of which anything was planned on it."""
    numbers = material.of(evidence)
    name, title = evidence.bundle.target, material.targets.of(evidence.bundle.target).title
    profile = evidence.bundle.profile.name
    where = f"{title}, profile {profile}, bundle {evidence.name}, {evidence.bundle.executor}."
    parts: dict[Suite, Callable[[], Section]] = {
        "training_step": lambda: Section(
            f"training-{name}",
            f"Training step on {title}",
            where,
            (figures.training(evidence, numbers),),
            (tables.training(evidence, numbers), tables.phases(evidence, numbers)),
        ),
        "export_accuracy": lambda: Section(
            f"exports-{name}",
            f"Export accuracy on {title}",
            where,
            (figures.exports(evidence, numbers, material.policy),),
            (tables.exports(evidence, numbers),),
        ),
        "inference_latency": lambda: Section(
            f"latency-{name}",
            f"Inference latency on {title}",
            where,
            (figures.latency(evidence, numbers),),
            _latencies(evidence, numbers),
        ),
        "packaging": lambda: Section(
            f"packaging-{name}",
            f"Packaging of {title}",
            f"{where} {packaging.lead(evidence)}",
            (figures.packaged(evidence, numbers),),
            packaging.tables(evidence, numbers),
        ),
    }
    return [make() for suite, make in parts.items() if cells_of(evidence, suite)]


def _latencies(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """A function's by its memory, a process' by its runtime."""
    if functions.is_function(evidence):
        return functions.warm(evidence, numbers), functions.cold(evidence, numbers)
    return tables.latency(evidence, numbers), tables.cold(evidence, numbers)


def _reproduce(evidence: Evidence) -> Section:
    bundle = evidence.bundle
    options = [f"--profile {bundle.profile.name}", f"--seed {bundle.profile.recipe.seed}"]
    options += [
        f"--{key} {value}" for key, value in bundle.spec.model_dump().items() if value not in (None, "embedded")
    ]
    commands = (
        f"git checkout {bundle.source.commit or '<the commit that measured, which this bundle does not know>'}",
        f"matrix run {bundle.target} {' '.join(options)}",
        f"matrix verify reports/bundles/{evidence.name}",
        f"pytest-benchmark compare reports/bundles/{evidence.name}/launches/*/benchmark.json",
    )
    title = f"How to reproduce {bundle.target}"
    return Section(f"reproduce-{bundle.target}", title, "", tables=(provenance.environment(bundle),), commands=commands)


_METHOD = (
    "A launch is a fresh process that runs every planned cell once, in a shuffled order. Within a launch a cell is warmed up "
    "until steady, sampled until the median's interval is narrow, and then measured by a block whose length was fixed before "
    "it began; only that block counts. Samples of different launches are never pooled: an interval over launches is a "
    "t-interval on logarithms, a gate's bound the worst launch. Accuracy differences are paired, example by example."
)


def build(material: Material) -> Page:
    """The report of `material`."""
    shown = [one for one in material.shown() if not one.faults]
    sections = [
        Section("matrix", "The matrix", tables=(overview.heat_map(material),)),
        Section("gates", "Gates", tables=(overview.gates(material),)),
        *(section for one in shown for section in _suites(material, one)),
        Section("estimates", "Estimates and measurements", tables=(overview.estimates(material),)),
        Section("evidence", "Evidence", tables=(overview.bundles(material),)),
        *(_reproduce(one) for one in shown),
        Section("method", "How to read it", _METHOD, tables=(overview.legend(),)),
    ]
    return Page(
        title="distill-matrix report",
        answer=material.verdict.answer,
        sentence=sentence(material.verdict),
        made=material.case.today.now.strftime("%Y-%m-%d %H:%M UTC"),
        policy=f"{material.policy.name} {material.policy.sha256[:12]}",
        sections=tuple(sections),
    )
