"""What runtimes answer under load: by clients that wait, and at arrivals that do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
_STREAMED: Final = ("requests_per_s", "decode_per_s", "first_token_s", "p50_s", "p95_s", "p99_s", "error_share")
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


_CLOSED: Final = (
    "So many clients, each of which asks again when it has its answer; a latency begins when it asks. Quantiles are each launch's "
    "own, intervals over launches: latencies of a queue are not independent. Clients run on the workers' cores."
)
_OPENED: Final = (
    "Poisson arrivals at a share of what the same workers answered a moment before with their queue never empty. A latency "
    "begins when a request was due, so that a stall is paid for by all requests that it delays (coordinated omission)."
)
_INTENT: Final = (
    "One worker with every thread answers one request soonest, a worker a thread most of them (OpenVINO by its latency and "
    "throughput hints)."
)
_RESPONSE: Final = (
    "llama.cpp's OpenAI-compatible server answers one request at a time; answers are streamed, and end when the student ends "
    "them. An answer's time is to its end."
)


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """Clients that wait, and arrivals that do not: of the classifier's runtimes, then of llama.cpp's server; none without a row."""
    cells = _in_order(evidence)
    found = []
    for workload, what, told in (("intent", _INTENT, _COLUMNS), ("response", _RESPONSE, _STREAMED)):
        ours = [cell for cell in cells if cell.workload == workload]
        for waits, title, how in ((True, "Clients that wait", _CLOSED), (False, "Arrivals that do not wait", _OPENED)):
            asked = [cell for cell in ours if (cell.clients is not None) == waits]
            columns = told if waits else ("capacity_per_s", *told)
            head = ("Runtime" if workload == "intent" else "File", "Workers", "Load", *titles(columns))
            name = f"{'clients' if waits else 'arrivals'}-{workload}"
            found.append(Table(name, title, f"{what} {how}", head, _rows(evidence, numbers, asked, columns)))
    return tuple(table for table in found if table.rows)


def _rows(
    evidence: Evidence, numbers: Numbers, cells: Iterable[Cell], columns: Sequence[str]
) -> tuple[tuple[Entry, ...], ...]:
    def head(cell: Cell) -> list[Entry]:
        return [name_of(cell), Entry(_WORKERS[cell.mode or "latency"]), Entry(_asks(cell))]

    return rows_of(evidence, numbers, cells, head, columns)


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """Answers a second of each runtime with as many clients as are asked at most; a server's few would lie on the axis' zero."""
    rows: list[Row] = []
    most = max((cell.clients or 0 for cell in cells_of(evidence, SUITE)), default=0)
    for mode, workers in _WORKERS.items():
        found = [
            row_of(name_of(cell).text, judged, ())
            for cell in _in_order(evidence)
            if (cell.workload, cell.mode, cell.clients) == ("intent", mode, most)
            and (judged := numbers.get((cell.id, "requests_per_s")))
        ]
        rows += [Row(f"workers: {workers}"), *found] if found else []
    axis = Axis(f"answers a second to {most} clients", lambda value: show(value, "per_s"))
    svg = plot(f"plot-load-{evidence.bundle.target}", "Answers a second of each runtime under load", rows, axis)
    return Figure(svg, "The bar is the 95 % interval over launches.")
