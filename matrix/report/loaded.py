"""What runtimes answer under load: by clients that wait, and at arrivals that do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Entry, Numbers, Table, name_of, rows_of, titles
from matrix.units import show

SUITE: Final = "concurrent_load"
_COLUMNS: Final = ("requests_per_s", "p50_s", "p95_s", "p99_s", "queued_s", "error_share")
_WORKERS: Final = {"latency": "one, with every thread", "throughput": "one a thread"}


def _in_order(evidence: Evidence) -> list[Cell]:
    """By runtime; within one by workers, clients, then arrivals."""
    cells = cells_of(evidence, SUITE)
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    return sorted(
        cells, key=lambda cell: (variants.index(cell.variant), cell.mode or "", cell.load or 0, cell.clients or 0)
    )


def _asks(cell: Cell) -> str:
    if cell.clients is None:
        return f"arrivals at {cell.load} % of capacity"
    return f"{cell.clients} client{'s' if cell.clients > 1 else ''}"


def _table(identifier: str, title: str, lead: str, rows: tuple[tuple[Entry, ...], ...]) -> Table:
    return Table(identifier, title, lead, ("Runtime", "Workers", "Load", *titles(_COLUMNS)), rows)


def _rows(evidence: Evidence, numbers: Numbers, cells: Iterable[Cell]) -> tuple[tuple[Entry, ...], ...]:
    def head(cell: Cell) -> list[Entry]:
        return [name_of(cell), Entry(_WORKERS[cell.mode or "latency"]), Entry(_asks(cell))]

    return rows_of(evidence, numbers, cells, head, _COLUMNS)


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """Clients that wait, and arrivals that do not; none without a row."""
    cells = _in_order(evidence)
    count = evidence.bundle.profile.inference.max_rounds
    closed = _table(
        "clients",
        "Clients that wait",
        f"{count:,} requests of the data's own lengths, by so many clients, each of which asks again when it has its answer. "
        "One worker with every thread answers one request soonest, a worker a thread most of them (OpenVINO by its latency and "
        "throughput hints). A latency begins when a client asks. Quantiles are each launch's own, intervals over launches: "
        "latencies of a queue are not independent. Clients run on the workers' cores.",
        _rows(evidence, numbers, [cell for cell in cells if cell.clients is not None]),
    )
    opened = _table(
        "arrivals",
        "Arrivals that do not wait",
        "Poisson arrivals at a share of what the same workers answered a moment before with their queue never empty. A latency "
        "begins when a request was due, so that a stall is paid for by all requests that it delays (coordinated omission).",
        _rows(evidence, numbers, [cell for cell in cells if cell.clients is None]),
    )
    return tuple(table for table in (closed, opened) if table.rows)


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """Answers a second of each runtime with as many clients as are asked at most."""
    rows: list[Row] = []
    most = max((cell.clients or 0 for cell in cells_of(evidence, SUITE)), default=0)
    for mode, workers in _WORKERS.items():
        found = [
            row_of(name_of(cell).text, judged, ())
            for cell in _in_order(evidence)
            if (cell.mode, cell.clients) == (mode, most) and (judged := numbers.get((cell.id, "requests_per_s")))
        ]
        rows += [Row(f"workers: {workers}"), *found] if found else []
    axis = Axis(f"answers a second to {most} clients", lambda value: show(value, "per_s"))
    svg = plot(f"plot-load-{evidence.bundle.target}", "Answers a second of each runtime under load", rows, axis)
    return Figure(svg, "The bar is the 95 % interval over launches.")
