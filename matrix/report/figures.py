"""One plot a suite: what the tables say, where people would rather look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.findings import PART
from matrix.policy import Policy
from matrix.ranks import quantile
from matrix.report import functions, packaging
from matrix.report.badges import MARKS, mark_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Numbers, length_of, name_of
from matrix.units import show
from matrix.verdict import Judged


@dataclass(frozen=True)
class Figure:
    """A drawn plot and the sentence that says how to read it."""

    svg: str
    caption: str


def row_of(label: str, judged: Judged, points: tuple[float, ...], bound: float | None = None) -> Row:
    """A judged number as a row: its value and interval, the launches' `points`, and the `bound` that a gate is judged on."""
    finding = judged.finding
    return Row(label, finding.value, finding.low, finding.high, points, bound, MARKS[mark_of(judged.state)].tone)


def _medians(evidence: Evidence, cell: Cell) -> tuple[float, ...]:
    return tuple(quantile(list(one.samples), 0.5) for one in evidence.launches_of(cell.id).values())


def exports(evidence: Evidence, numbers: Numbers, policy: Policy) -> Figure:
    """Accuracy delta of each export."""
    rows = [
        row_of(name_of(cell).text, found, ())
        for cell in cells_of(evidence, "export_accuracy")
        if (found := numbers.get((cell.id, "accuracy_delta")))
    ]
    limit = next(
        (gate.limit for gate in policy.gate if gate.metric == "accuracy_delta" and "onnx_int8" in gate.variants), None
    )
    lines = ((0.0, "no difference"), *(((limit, "the gate's limit"),) if limit is not None else ()))
    axis = Axis("accuracy against PyTorch fp32, points", lambda v: f"{100 * v:+.2f}", lines=lines)
    svg = plot(f"plot-exports-{evidence.bundle.target}", "Accuracy delta of each export with its interval", rows, axis)
    return Figure(
        svg,
        "The bar is Tango's 95 % interval of the paired difference. The dashed lines are zero and the INT8 gate's limit.",
    )


def _function_rows(evidence: Evidence, numbers: Numbers) -> Iterator[Row]:
    """A group a memory size and way of calling; a row a length."""
    told, several = None, len({cell.variant for cell in functions.warm_cells(evidence)}) > 1
    for cell in functions.warm_cells(evidence):
        group = f"{functions.memory_of(cell)}, {functions.calls_of(cell)}"
        name = f"{name_of(cell).text}, " if several else ""
        if group != told:
            yield Row(f"{name}{group}")
            told = group
        found, tail = numbers.get((cell.id, "p50_s")), numbers.get((cell.id, "p95_s"))
        if found:
            bound = tail.finding.bound_high if tail else None
            yield row_of(length_of(cell).text, found, _medians(evidence, cell), bound)


def _latency_rows(evidence: Evidence, numbers: Numbers) -> Iterator[Row]:
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "warm"]
    for length in (one for one in evidence.bundle.profile.latency_lengths if one in {cell.length for cell in cells}):
        yield Row("own lengths" if length == "data" else f"{length} tokens")
        for cell in cells:
            found, tail = numbers.get((cell.id, "p50_s")), numbers.get((cell.id, "p95_s"))
            if cell.length == length and found:
                bound = tail.finding.bound_high if tail else None
                yield row_of(name_of(cell).text, found, _medians(evidence, cell), bound)


def latency(evidence: Evidence, numbers: Numbers) -> Figure:
    """Warm latency of each runtime at each length."""
    axis = Axis("time of one call, logarithmic", lambda v: show(v, "s"), log=True)
    emulated = functions.is_function(evidence)
    rows = list((_function_rows if emulated else _latency_rows)(evidence, numbers))
    told = "Latency of the function at each memory size" if emulated else "Latency of each runtime at each length"
    svg = plot(f"plot-latency-{evidence.bundle.target}", told, rows, axis)
    return Figure(
        svg,
        "A dot is a launch's median, the bar the 95 % interval of p50, the bracket the p95 bound that a gate is judged on.",
    )


def packaged(evidence: Evidence, numbers: Numbers) -> Figure:
    """The largest parts of the image; nothing where there is none."""
    whole, cell = packaging.measured_image(evidence), packaging.image_cell(evidence)
    size = numbers.get((cell.id, "image_bytes")) if cell else None
    facts = whole.evidence.facts if whole and size else {}
    tone = MARKS[mark_of(size.state)].tone if size else "none"
    parts = sorted(
        ((value, name.removeprefix(PART)) for name, value in facts.items() if name.startswith(PART)), reverse=True
    )
    rows = [Row(name, value, 0.0, value, tone=tone) for value, name in parts if value]
    svg = plot(
        f"plot-packaging-{evidence.bundle.target}",
        "The largest parts of the image by their bytes",
        rows,
        Axis("bytes, uncompressed", lambda v: show(v, "bytes")),
    )
    return Figure(
        svg,
        "The base is its whole layer; every other bar is the files of one distribution, or the function's model. "
        "A smaller image begins with the longest.",
    )
