"""Tables: built once from judged numbers, drawn as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.catalog import METRICS, VARIANTS, Variant, variant
from matrix.cell import Cell
from matrix.estimates import Comparison
from matrix.gates import limit_of
from matrix.report.badges import MARKS, worst
from matrix.report.material import Material, cells_of
from matrix.units import DASH, show, show_interval
from matrix.verdict import Judged


@dataclass(frozen=True)
class Entry:
    """One entry: its text, a smaller note under it, the name of its mark (badges.MARKS), and a hint."""

    text: str = ""
    note: str = ""
    mark: str | None = None
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A captioned table; the first column heads its rows."""

    id: str
    title: str
    lead: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


Numbers = dict[tuple[str, str], Judged]


def _reasons(judged: Judged) -> str:
    return "; ".join(str(reason) for reason in judged.state.reasons)


def _number(judged: Judged | None, *, bound: bool = False) -> Entry:
    """A value with its interval (or, for a tail quantile, the upper bound that a gate would use) and its badge."""
    if judged is None:
        return Entry(DASH)
    finding = judged.finding
    if finding.value is None:
        return Entry(DASH, f"no bound from {finding.samples} samples", hint=_reasons(judged))
    note = (
        f"≤ {show(finding.bound_high, finding.unit)}"
        if bound
        else show_interval(finding.low, finding.high, finding.unit)
    )
    return Entry(show(finding.value, finding.unit), note, judged.state.badge, _reasons(judged))


def _name(cell: Cell) -> Entry:
    return Entry(variant(cell.suite, cell.variant).title)


def _rows(
    evidence: Evidence,
    numbers: Numbers,
    cells: Iterable[Cell],
    head: Callable[[Cell], Sequence[Entry]],
    columns: Sequence[str],
) -> tuple[tuple[Entry, ...], ...]:
    """A row a cell: its heading entries, then each metric; a cell that no launch measured says so in its row."""
    rows = []
    for cell in cells:
        bounded = {"p95_s", "p99_s"}
        found = [_number(numbers.get((cell.id, name)), bound=name in bounded) for name in columns]
        if not evidence.launches_of(cell.id):
            found = [Entry("", mark="failed", hint=_why_lost(evidence, cell)), *[Entry(DASH) for _ in columns[1:]]]
        rows.append((*head(cell), *found))
    return tuple(rows)


def _why_lost(evidence: Evidence, cell: Cell) -> str:
    told = [
        outcome.error
        for launch in evidence.bundle.launches
        for outcome in launch.outcomes
        if outcome.cell == cell.id and outcome.error
    ]
    return told[0].strip().splitlines()[-1] if told else "no launch reached it"


def _titles(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(METRICS[name].title for name in columns)


def training(evidence: Evidence, numbers: Numbers) -> Table:
    """One optimizer step of each stack."""
    columns = ("step_s", "samples_per_s", "ratio", "peak_fraction", "peak_bytes", "step_flop", "matmul_flop_per_s")
    cells = cells_of(evidence, "training_step")
    size = f"batch {cells[0].batch} of {cells[0].length} tokens" if cells else ""
    lead = f"{size}: median step over {evidence.bundle.profile.launches} launches. Work is counted in matrix products: teacher forward + 3 × student forward, an encoder's forward being L (2 T (4 d² + 2 d f) + 4 T S d) FLOPs for T = batch × S tokens; the peak is the best fp32 matrix product measured in the same launch."  # noqa: RUF001 - multiplication signs
    return Table(
        "training",
        "Training step",
        lead,
        ("Stack", *_titles(columns)),
        _rows(evidence, numbers, cells, lambda c: [_name(c)], columns),
    )


def phases(evidence: Evidence, numbers: Numbers) -> Table:
    """Where a step's time goes."""
    columns = tuple(
        f"{name}_share" for name in ("teacher_forward", "student_forward", "backward", "optimizer", "other")
    )
    lead = "Shares of the step, by hooks on teacher, student and optimizer; backward holds the loss and clipping, other the library's own loop."
    cells = cells_of(evidence, "training_step")
    return Table(
        "phases",
        "Where a step's time goes",
        lead,
        ("Stack", *_titles(columns)),
        _rows(evidence, numbers, cells, lambda c: [_name(c)], columns),
    )


def exports(evidence: Evidence, numbers: Numbers) -> Table:
    """What each export costs in accuracy."""
    columns = ("accuracy", "accuracy_delta", "flip_rate", "mean_kl", "max_dlogit", "artifact_bytes")
    cells = cells_of(evidence, "export_accuracy")
    data = evidence.bundle.prepared.data
    lead = f"{data.evaluation.examples:,} evaluation examples of {data.source} ({len(data.classes)} classes), each answered by every export; differences to PyTorch fp32 are paired (Tango's 95 % interval)."
    pairs = []
    for row, cell in zip(_rows(evidence, numbers, cells, lambda c: [_name(c)], columns), cells, strict=True):
        delta = numbers.get((cell.id, "accuracy_delta"))
        notes = delta.finding.notes if delta else {}
        told = f"+{notes['won']:.0f} / -{notes['lost']:.0f}, p = {notes['mcnemar_p']:.2g}" if notes else DASH
        pairs.append((*row, Entry(told)))
    return Table(
        "exports", "Export accuracy", lead, ("Export", *_titles(columns), "won / lost, exact McNemar"), tuple(pairs)
    )


def _length(cell: Cell) -> Entry:
    return Entry("own lengths" if cell.length == "data" else f"{cell.length} tokens")


def latency(evidence: Evidence, numbers: Numbers) -> Table:
    """Warm batch-1 latency."""
    columns = ("p50_s", "p95_s", "p99_s", "ratio")
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "warm"]
    order = {length: index for index, length in enumerate(evidence.bundle.profile.latency_lengths)}
    cells.sort(key=lambda cell: order.get(cell.length or 0, 0))
    threads = evidence.bundle.profile.inference_threads
    lead = f"Batch 1, warm, {threads} pinned thread{'s' if threads > 1 else ''}, NumPy in and NumPy out. p50: 95 % interval over launches. p95 and p99: the worst launch's 95 % order-statistic bound, which is what a gate is judged on."
    head = ("Runtime", "Length", *_titles(columns))
    return Table(
        "latency",
        "Inference latency, warm",
        lead,
        head,
        _rows(evidence, numbers, cells, lambda c: [_name(c), _length(c)], columns),
    )


def cold(evidence: Evidence, numbers: Numbers) -> Table:
    """A new process' first answer."""
    columns = ("start_s", "import_s", "load_s", "first_call_s", "resident_bytes", "peak_bytes")
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "cold"]
    lead = "A new process imports the runtime, loads the model and answers one example: from its creation to its first answer, and its own account of the parts. One start a launch; files are in the page cache."
    head = ("Runtime", *_titles(columns))
    return Table(
        "cold", "Inference latency, cold", lead, head, _rows(evidence, numbers, cells, lambda c: [_name(c)], columns)
    )


def _built() -> list[Variant]:
    return [found for found in VARIANTS if found.missing is None]


def heat_map(material: Material) -> Table:
    """A row a target, a column a built variant: the worst badge of its numbers, as glyph and word."""
    columns = _built()
    rows = []
    for name, target in material.targets.target.items():
        evidence, plan = material.newest(name), material.plan(name)
        numbers = material.of(evidence) if evidence else {}
        reasons = {(item.cell.suite, item.cell.variant): item.reason for item in plan.excluded}
        entries = [Entry(target.title, name)]
        for column in columns:
            held = [
                one
                for one in numbers.values()
                if (one.finding.cell.suite, one.finding.cell.variant) == (column.suite, column.name)
            ]
            excluded = reasons.get((column.suite, column.name))
            if held:
                entries.append(Entry("", mark=worst(held), hint=f"{len(held)} numbers"))
            elif excluded:
                entries.append(Entry("", mark="excluded", hint=excluded))
            else:
                entries.append(Entry("", mark="failed" if evidence and not evidence.faults else "not measured"))
        rows.append(tuple(entries))
    short = {"training_step": "train", "export_accuracy": "export", "inference_latency": "serve"}
    head = ("Target", *(f"{short[column.suite]}: {column.title}" for column in columns))
    lead = "Each entry is the worst state among the numbers of that variant on that target; what is not built yet is listed in the plan (`matrix plan`)."
    return Table("matrix", "The matrix", lead, head, tuple(rows))


def gates(material: Material) -> Table:
    """Every requirement of the policy."""
    rows = []
    for result in material.verdict.results:
        bound = show(result.bound, result.unit)
        cell = result.cell.split("/", 2)[2]
        rows.append(
            (
                Entry(result.gate),
                Entry(cell, result.target),
                Entry(bound, METRICS[result.metric].title, result.badge),
                Entry(limit_of(result, material.policy)),
                Entry("", mark=result.answer),
                Entry(result.why),
            )
        )
    lead = "Judged on the bound, never on the value: pass needs the unfavourable bound of a believed number on the right side of the limit."
    return Table("gates", "Gates", lead, ("Gate", "Cell", "Bound", "Limit", "Answer", "Why"), tuple(rows))


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
                _number(comparison.judged),
                Entry("", mark=comparison.status),
                Entry(comparison.why),
            )
        )
    lead = "What the design note planned with. An estimate is never promoted: it stands beside a measurement and never in its place."
    return Table(
        "estimates",
        "Estimates and measurements",
        lead,
        ("Estimate", "Place", "Range", "Measured", "Answer", "By how much, or why not"),
        tuple(rows),
    )


def bundles(material: Material) -> Table:
    """Every bundle that was read, newest first, and those that could not be."""
    rows = []
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
                Entry("", mark=mark, hint="; ".join(one.faults)),
            )
        )
    rows += [
        (Entry(torn), Entry(DASH), Entry(DASH), Entry(DASH), Entry(DASH), Entry("", mark="invalid"))
        for torn in material.torn
    ]
    lead = "The worst state of each bundle's numbers. Every attempt counts: a gate takes the worst fresh one."
    return Table(
        "bundles",
        "Bundles",
        lead,
        ("Bundle", "Measured (UTC)", "Executor", "Attempt", "Holds", "Worst state"),
        tuple(rows),
    )


def environment(evidence: Evidence) -> Table:
    """What a bundle ran on, and what it measured."""
    bundle = evidence.bundle
    spoke = next((record for record in bundle.launches if record.environment and record.host), None)
    facts: list[tuple[str, str]] = []
    if spoke and spoke.environment and spoke.host:
        host, software = spoke.host, spoke.environment
        facts += [
            (
                "CPU",
                f"{host.cpu}, {host.cores} cores usable, {show(host.memory_bytes, 'bytes')}, flags {' '.join(host.flags) or 'unknown'}",
            ),
            ("GPU", ", ".join(host.gpus) or "none"),
            ("virtual machine", {True: "yes", False: "no", None: "unknown"}[host.virtual]),
            ("CPU quota", f"{host.quota_cores} cores" if host.quota_cores else "none"),
            ("frequency governor", host.governor or "not told"),
            ("system", f"{software.system}, Python {software.python}"),
            ("packages", ", ".join(f"{name} {version}" for name, version in software.packages.items())),
            ("variables", ", ".join(f"{key}={value}" for key, value in software.variables.items()) or "none"),
        ]
    prepared, training = bundle.prepared, bundle.prepared.training
    facts += [
        ("executor", f"{bundle.executor}" + (f", image {bundle.image}" if bundle.image else ", without an image")),
        (
            "code",
            f"commit {bundle.source.commit or 'unknown'}"
            + (" with uncommitted changes" if bundle.source.dirty else ""),
        ),
        (
            "data",
            f"{prepared.data.source}: {prepared.data.train.examples:,} train, {prepared.data.validation.examples:,} validation, {prepared.data.evaluation.examples:,} evaluation",
        ),
        (
            "teacher",
            f"{prepared.teacher_model.parameters / 1e6:.2f} M parameters"
            + (f", validation accuracy {show(training.teacher_accuracy, 'share')}" if training else ""),
        ),
        (
            "student",
            f"{prepared.student_model.parameters / 1e6:.2f} M parameters, {prepared.student_model.origin}"
            + (
                f", validation accuracy {show(training.student_accuracy, 'share')}, distilled in {show(training.seconds, 's')}"
                if training
                else ""
            ),
        ),
        ("weights", prepared.student_model.weights_sha256 or DASH),
        (
            "identities",
            f"environment {bundle.environment_id[:12]}, host class {bundle.host_class_id[:12]}, host {bundle.host_instance[:12]}",
        ),
    ]
    return Table(
        "environment", "Environment", "", ("Fact", "Value"), tuple((Entry(name), Entry(value)) for name, value in facts)
    )


def legend() -> Table:
    """What each mark means."""
    rows = tuple((Entry("", mark=name), Entry(mark.meaning)) for name, mark in MARKS.items())
    return Table("legend", "What the marks mean", "", ("Mark", "Meaning"), rows)
