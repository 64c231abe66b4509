"""The report's order, from the verdict over suites, tools, serving and estimates to how to reproduce it. Data for views."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from matrix.bundle import Evidence
from matrix.cell import Suite
from matrix.gates import sentence
from matrix.report import (
    deployment,
    doubted,
    figures,
    functions,
    generation,
    ledger,
    loaded,
    overview,
    packaging,
    provenance,
    responses,
    schemes,
    tables,
    tools,
    training,
    trials,
)
from matrix.report.figures import Figure
from matrix.report.material import Material
from matrix.report.tables import Numbers, Table
from matrix.verdict import PRECEDENCE


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


class _View(Protocol):
    """A module that draws one suite of a bundle."""

    def figure(self, evidence: Evidence, numbers: Numbers) -> Figure:
        """Its plot."""

    def tables(self, evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
        """Its tables."""


def _suites(material: Material, evidence: Evidence, shown: Sequence[Suite]) -> list[Section]:
    """Suites of one bundle: those that it is shown for."""
    numbers = material.of(evidence)
    name, title = evidence.bundle.target, material.targets.of(evidence.bundle.target).title
    profile = evidence.bundle.profile.name
    where = f"{title}, profile {profile}, bundle {evidence.name}, {evidence.bundle.executor}."
    where = f"{where} {ledger.unaccepted(material, evidence)}".rstrip()

    def drawn(prefix: str, heading: str, view: _View) -> Section:
        """A section of one figure and its tables."""
        figure, told = view.figure(evidence, numbers), view.tables(evidence, numbers)
        return Section(f"{prefix}-{name}", f"{heading} on {title}", where, (figure,), told)

    parts: dict[Suite, Callable[[], Section]] = {
        "training_step": lambda: Section(
            f"training-{name}",
            f"Training step on {title}",
            where,
            training.figures(evidence, numbers),
            (*training.steps(evidence, numbers), *training.phases(evidence, numbers)),
        ),
        "training_quality": lambda: Section(
            f"trials-{name}",
            f"Quality beside speed on {title}",
            where,
            (trials.figure(evidence, numbers),),
            (trials.table(evidence, numbers),),
        ),
        "export_accuracy": lambda: Section(
            f"exports-{name}",
            f"Export accuracy on {title}",
            where,
            (figures.exports(evidence, numbers, material.policy),),
            (tables.exports(evidence, numbers),),
        ),
        "quantization_schemes": lambda: drawn("schemes", schemes.TITLE, schemes),
        "response_quality": lambda: drawn("responses", "Response quality", responses),
        "inference_latency": lambda: Section(
            f"latency-{name}",
            f"Inference latency on {title}",
            where,
            (figures.latency(evidence, numbers),),
            _latencies(evidence, numbers),
        ),
        "generation": lambda: drawn("generation", "Generation", generation),
        "concurrent_load": lambda: drawn("load", "Under load", loaded),
        "packaging": lambda: Section(
            f"packaging-{name}",
            f"Packaging of {title}",
            f"{where} {packaging.lead(evidence)}",
            (figures.packaged(evidence, numbers),),
            packaging.tables(evidence, numbers),
        ),
    }
    return [make() for suite, make in parts.items() if suite in shown]


def _latencies(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """A function's by its memory, a process' by its runtime; none without a row."""
    makers = (functions.warm, functions.cold) if functions.is_function(evidence) else (tables.latency, tables.cold)
    return tuple(table for make in makers if (table := make(evidence, numbers)).rows)


def _explained(material: Material, evidence: Evidence) -> str:
    """How one number of the bundle is derived: one that a gate asks for, else its first."""
    asked = [(result.cell, result.metric) for result in material.verdict.results if result.bundle == evidence.name]
    held = [*asked, *material.of(evidence)]
    cell, metric = held[0] if held else (evidence.bundle.planned[0].id, "METRIC")
    return f"matrix explain {shlex.quote(cell)} --metric {metric} --target {evidence.bundle.target}"


def _reproduce(material: Material, evidence: Evidence) -> Section:
    bundle = evidence.bundle
    options = [
        f"--executor {bundle.executor}",
        f"--profile {bundle.profile.name}",
        *(f"--suite {suite}" for suite in bundle.profile.suites),
        f"--seed {bundle.profile.recipe.seed}",
        *(f"--{key} {value}" for key, value in bundle.spec.model_dump().items() if value not in (None, "embedded")),
    ]
    commands = (
        f"git checkout {bundle.source.commit or '<the commit that measured, which this bundle does not know>'}",
        f"matrix run {bundle.target} {' '.join(options)}",
        f"matrix verify reports/bundles/{evidence.name}   # its files and its signature; `matrix verify reports`: every chain too",
        _explained(material, evidence),
        f"pytest-benchmark compare reports/bundles/{evidence.name}/launches/*/benchmark.json",
    )
    title = f"How to reproduce {bundle.target}, profile {bundle.profile.name}"
    return Section(
        f"reproduce-{bundle.target}-{bundle.profile.name}",
        title,
        "",
        tables=(provenance.environment(bundle),),
        commands=commands,
    )


_METHOD = (
    "A launch is a fresh process that runs every planned cell once, in a shuffled order. Within a launch a cell is warmed up "
    "until steady, sampled until the median's interval is narrow, and then measured by a block whose length was fixed before "
    "it began; only that block counts. Samples of different launches are never pooled: an interval over launches is a "
    "t-interval on logarithms, a gate's bound the worst launch. Accuracy differences are paired, example by example."
)


_STATES = (
    "A number has an origin (estimate, emulated, measured), a validity, what those who may speak for it say (trust), and an "
    f"age; its badge is the first that holds: {' > '.join(PRECEDENCE)}. States are derived from every bundle and the ledger on "
    "the day of the report and stored nowhere. Only trusted and confirmed numbers, signed by whom the policy asks for, let a "
    "gate pass. Every attempt counts: one contradiction beats any number of confirmations and does not age. A time under "
    "emulation never lets a gate pass; only a run on the service itself could confirm it. A signature proves who and which "
    "bytes, not honesty: that is what canaries, cross-checks and other hosts are for."
)


def _first(material: Material) -> list[Section]:
    """What a reader needs before anything else: why there is no verdict where there is none, the matrix, the gates, the doubts."""
    why, doubts = ledger.faults(material), doubted.table(material)
    return [
        *([Section("invalid", "Why no answer counts", tables=(why,))] if why.rows else []),
        Section("matrix", "The matrix", tables=(overview.heat_map(material),)),
        Section("gates", "Gates", tables=(overview.gates(material),)),
        *([Section("doubted", doubts.title, tables=(doubts,))] if doubts.rows else []),
    ]


def _unstudied(shown: Iterable[Suite]) -> list[Section]:
    """The study that no bundle holds, and how to make it."""
    told = Section("schemes", schemes.TITLE, schemes.ABSENT, commands=(schemes.COMMAND,))
    return [] if "quantization_schemes" in shown else [told]


def build(material: Material) -> Page:
    """The report of `material`."""
    shown = [(one, suites) for one, suites in material.shown() if not one.faults]
    chains = ledger.tables(material)
    sections = [
        *_first(material),
        *(section for one, suites in shown for section in _suites(material, one, suites)),
        *_unstudied(suite for _, suites in shown for suite in suites),
        Section("tools", "What each tool can do", tables=(tools.table(material.tools),)),
        Section(
            "deployment",
            "Where to serve: Lambda, container service or GPU",
            deployment.LEAD,
            (deployment.figure(material.choices),),
            deployment.tables(material.deployment, material.choices),
        ),
        Section("estimates", "Estimates and measurements", tables=(overview.estimates(material),)),
        Section("evidence", "Evidence", tables=(overview.bundles(material),)),
        *([Section("ledger", "Ledger", tables=chains)] if chains else []),
        *(_reproduce(material, one) for one, _ in shown),
        Section("method", "How numbers are measured", _METHOD),
        Section("states", "How states are derived", _STATES, tables=(overview.legend(),)),
    ]
    return Page(
        title="distill-matrix report",
        answer="invalid" if material.verdict.invalid else material.verdict.answer,
        sentence=sentence(material.verdict),
        made=material.case.today.now.strftime("%Y-%m-%d %H:%M UTC"),
        policy=f"{material.policy.name} {material.policy.sha256[:12]}",
        sections=tuple(sections),
    )
