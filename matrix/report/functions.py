"""Tables of an emulated function's latencies: warm and cold, by its memory, which sets its share of a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.report.material import cells_of
from matrix.report.tables import Entry, Numbers, Table, length_of, name_of, rows_of, titles
from matrix.units import DASH, show

_FULL_MB: Final = 1769
"""Memory at which a function has one vCPU (AWS Lambda's documentation), as `matrix.workloads.function` emulates it."""

_SHARE: Final = (
    f"A function's share of a CPU is its memory / {_FULL_MB} MB, given as a quota of 20 ms periods in a container on this "
    "host: an imitation of the service, which can fail a gate and never pass one."
)


def is_function(evidence: Evidence) -> bool:
    """Whether the bundle's latencies are those of a function."""
    return any(cell.memory_mb for cell in cells_of(evidence, "inference_latency"))


def memory_of(cell: Cell) -> str:
    """The function's memory, with its share of a CPU."""
    memory = cell.memory_mb or _FULL_MB
    return f"{memory} MB, {100 * memory / _FULL_MB:.0f} % CPU"


def calls_of(cell: Cell) -> str:
    """How calls follow each other."""
    return f"one each {cell.every_ms} ms" if cell.every_ms else "back to back"


def _head(cell: Cell, evidence: Evidence) -> Entry:
    """The memory; the runtime too where the function has several."""
    several = len({one.variant for one in cells_of(evidence, "inference_latency")}) > 1
    return Entry(memory_of(cell), name_of(cell).text if several else "")


def warm_cells(evidence: Evidence) -> list[Cell]:
    """The warm cells, by memory, then by the way of calling, then by length."""
    order = {length: index for index, length in enumerate(evidence.bundle.profile.latency_lengths)}
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "warm"]
    return sorted(
        cells, key=lambda c: (c.variant, c.memory_mb or 0, c.every_ms or 0, order.get(c.length or 0, len(order)))
    )


def _slowdown(cell: Cell, numbers: Numbers) -> Entry:
    """How many times what its share of a CPU explains a call takes."""
    p50, share = (numbers.get((cell.id, name)) for name in ("p50_s", "share_s"))
    if not (p50 and share and p50.finding.value and share.finding.value):
        return Entry(DASH)
    return Entry(show(p50.finding.value / share.finding.value, "ratio"))


def warm(evidence: Evidence, numbers: Numbers) -> Table:
    """Batch-1 latency of a warm function."""
    before, after = ("p50_s", "p95_s", "cpu_call_s", "share_s"), ("throttled_share", "late_share")
    cells = warm_cells(evidence)
    rows = rows_of(evidence, numbers, cells, lambda c: _headed(evidence, c), (*before, *after))
    split = 3 + len(before)
    lead = (
        f"{_only(cells)}Batch 1, one request at a time, over HTTP to the runtime's emulator. {_SHARE} CPU a call / share is "
        "what a call would take if the quota spread its CPU time evenly; a p50 below it ran on what the period had left. "
        "Throttled is the share of the time in which the quota held the container; late calls began over 1 ms after "
        "they were due."
    )
    return Table(
        "function-warm",
        "Function latency, warm",
        lead,
        ("Memory", "Length", "Calls", *titles(before), "p50 / (CPU a call / share)", *titles(after)),
        tuple((*row[:split], _slowdown(cell, numbers), *row[split:]) for row, cell in zip(rows, cells, strict=True)),
    )


def _headed(evidence: Evidence, cell: Cell) -> Sequence[Entry]:
    return [_head(cell, evidence), length_of(cell), Entry(calls_of(cell))]


def _only(cells: Sequence[Cell]) -> str:
    """The runtime's name where there is but one."""
    return f"{name_of(cells[0]).text}. " if len({cell.variant for cell in cells}) == 1 else ""


_INITS: Final = {"full": "at full CPU", "throttled": "throttled"}


def cold(evidence: Evidence, numbers: Numbers) -> Table:
    """A new instance's first answer."""
    columns = ("start_s", "create_s", "init_s", "peak_bytes")
    cells = [cell for cell in cells_of(evidence, "inference_latency") if cell.mode == "cold"]
    cells.sort(key=lambda c: (c.variant, c.memory_mb or 0, c.init or ""))
    lead = (
        f"{_only(cells)}A new instance is created, initialises and answers one example; files are in the page cache. {_SHARE} "
        "AWS says that init runs at the full CPU; throttled init is the worst that could be."
    )
    return Table(
        "function-cold",
        "Function latency, cold",
        lead,
        ("Memory", "Init", *titles(columns)),
        rows_of(
            evidence,
            numbers,
            cells,
            lambda c: [_head(c, evidence), Entry(_INITS.get(c.init or "", DASH))],
            columns,
        ),
    )
