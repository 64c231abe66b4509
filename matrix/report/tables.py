"""Tables of exports and a process' latencies: built once from judged numbers, drawn as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.catalog import METRICS, variant
from matrix.cell import Cell
from matrix.compare import call
from matrix.report.badges import mark_of
from matrix.report.material import cells_of
from matrix.units import DASH, show, show_interval
from matrix.verdict import Judged


@dataclass(frozen=True)
class Entry:
    """One entry: its text, a smaller note, the name of its mark (badges.MARKS), and a hint.

    The note stands between text and mark; after the mark where there is no text.
    """

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


def number(judged: Judged | None, *, bound: bool = False) -> Entry:
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
    if finding.metric == "ratio":
        note = f"{call(finding.low, finding.high)} {note}"
    return Entry(show(finding.value, finding.unit), note, mark_of(judged.state), _reasons(judged))


def name_of(cell: Cell) -> Entry:
    """The cell's variant by its title; by its name where a bundle is older than the catalog, which has it no more."""
    try:
        return Entry(variant(cell.suite, cell.variant).title)
    except KeyError:
        return Entry(cell.variant)


def rows_of(
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
        found = [number(numbers.get((cell.id, name)), bound=name in bounded) for name in columns]
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


def titles(columns: Sequence[str]) -> tuple[str, ...]:
    """The titles of metrics."""
    return tuple(METRICS[name].title for name in columns)


def exports(evidence: Evidence, numbers: Numbers) -> Table:
    """What each export costs in accuracy."""
    columns = ("accuracy", "accuracy_delta", "flip_rate", "mean_kl", "max_dlogit", "artifact_bytes")
    cells = cells_of(evidence, "export_accuracy")
    data = evidence.bundle.prepared.data
    asked = next((cell.examples for cell in cells if cell.examples), data.evaluation.examples)
    lead = (
        f"{min(asked, data.evaluation.examples):,} evaluation examples of {data.source} "
        f"({len(data.classes)} classes), each answered by every export; differences to PyTorch fp32 are paired "
        "(Tango's 95 % interval)."
    )
    pairs = []
    for row, cell in zip(rows_of(evidence, numbers, cells, lambda c: [name_of(c)], columns), cells, strict=True):
        delta = numbers.get((cell.id, "accuracy_delta"))
        notes = delta.finding.notes if delta else {}
        told = f"+{notes['won']:.0f} / -{notes['lost']:.0f}, p = {notes['mcnemar_p']:.2g}" if notes else DASH
        pairs.append((*row, Entry(told)))
    return Table(
        "exports", "Export accuracy", lead, ("Export", *titles(columns), "won / lost, exact McNemar"), tuple(pairs)
    )


def length_of(cell: Cell) -> Entry:
    """The length of the cell's input."""
    return Entry("own lengths" if cell.length == "data" else f"{cell.length} tokens")


def latency(evidence: Evidence, numbers: Numbers) -> Table:
    """Warm batch-1 latency."""
    columns = ("p50_s", "p95_s", "p99_s", "ratio")
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "warm"]
    order = {length: index for index, length in enumerate(evidence.bundle.profile.latency_lengths)}
    cells.sort(key=lambda cell: order.get(cell.length or 0, 0))
    threads = evidence.bundle.profile.inference_threads
    lead = (
        f"Batch 1, warm, {threads} pinned thread{'s' if threads > 1 else ''}, NumPy in and NumPy out. p50: 95 % interval over "
        "launches. p95 and p99: the worst launch's 95 % order-statistic bound, which is what a gate is judged on."
    )
    head = ("Runtime", "Length", *titles(columns))
    return Table(
        "latency",
        "Inference latency, warm",
        lead,
        head,
        rows_of(evidence, numbers, cells, lambda c: [name_of(c), length_of(c)], columns),
    )


def cold(evidence: Evidence, numbers: Numbers) -> Table:
    """A new process' first answer."""
    columns = ("start_s", "import_s", "load_s", "first_call_s", "resident_bytes", "peak_bytes")
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "cold"]
    lead = (
        "A new process imports the runtime, loads the model and answers one example: from its creation to its first answer, "
        "and its own account of the parts. One start a launch; files are in the page cache."
    )
    head = ("Runtime", *titles(columns))
    return Table(
        "cold",
        "Inference latency, cold",
        lead,
        head,
        rows_of(evidence, numbers, cells, lambda c: [name_of(c)], columns),
    )
