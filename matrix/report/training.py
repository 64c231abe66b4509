"""Training steps: what each stack takes beside raw PyTorch doing the same work, and what another method costs.

Stacks of one work are ranked by their ratio; a stack of other work is never in the same column as they.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, get_args

from matrix.bundle import Evidence
from matrix.catalog import WORKS, variant
from matrix.cell import Cell, Workload
from matrix.number import reference_of, same_work
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Entry, Numbers, Table, name_of, rows_of, titles

_STEP: Final = ("ratio", "method_ratio", "step_s", "samples_per_s", "floor_s", "peak_fraction", "peak_bytes")
_PROOFS: Final = ("tensor_rmse", "trained_accuracy")
"""What a device's own step and its own student say of its arithmetic: columns where a bundle holds them."""
_PHASES: Final = tuple(
    f"{name}_share" for name in ("teacher_forward", "student_forward", "backward", "optimizer", "other")
)
_OF: Final[dict[Workload, str]] = {"intent": "the classifier", "response": "the response model"}


def work_of(cell: Cell) -> str:
    """The name of what the cell's stack computes; of a bundle that is older than the catalog, the stack's own."""
    try:
        return variant(cell.suite, cell.variant).work
    except KeyError:
        return cell.variant


def _times(cell: Cell, numbers: Numbers) -> float:
    """The ratio to raw PyTorch doing the same work, which a stack is listed by; that one's own is 1."""
    judged = numbers.get((cell.id, "ratio"))
    return judged.finding.value if judged and judged.finding.value is not None else 1.0


def by_work(cells: Sequence[Cell], rank: Callable[[Cell], float]) -> list[Cell]:
    """Stacks by work in the catalog's order, within a work by `rank`."""
    order: list[str] = list(WORKS)
    place = {work: order.index(work) if work in order else len(order) for work in map(work_of, cells)}
    return sorted(cells, key=lambda cell: (place[work_of(cell)], rank(cell)))


def _ordered(evidence: Evidence, numbers: Numbers, workload: Workload) -> list[Cell]:
    """The stacks of a workload: by work, within a work the fastest first."""
    cells = [cell for cell in cells_of(evidence, "training_step") if cell.workload == workload]
    return by_work(cells, lambda cell: _times(cell, numbers))


def head_of(cell: Cell) -> Sequence[Entry]:
    """What heads a stack's row: its title with its note, and its work."""
    return [_stack(cell), Entry(work_of(cell))]


def _stack(cell: Cell) -> Entry:
    try:
        return Entry(name_of(cell).text, variant(cell.suite, cell.variant).note)
    except KeyError:
        return name_of(cell)


def steps(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """One optimizer step of each stack, a table a workload."""
    every = {workload: _ordered(evidence, numbers, workload) for workload in get_args(Workload)}
    named = {work_of(cell) for cells in every.values() for cell in cells}
    legend = tuple((Entry(work), Entry(meaning)) for work, meaning in WORKS.items() if work in named)
    tables = (_steps(evidence, numbers, workload, cells) for workload, cells in every.items() if cells)
    return (*tables, Table("works", "What the stacks compute", "", ("Work", "Its loss"), legend))


def _steps(evidence: Evidence, numbers: Numbers, workload: Workload, cells: Sequence[Cell]) -> Table:
    held = {metric for cell in cells for metric in _held(cell, numbers)}
    columns = (*(name for name in _STEP if name != "method_ratio" or name in held), *(n for n in _PROOFS if n in held))
    lead = (
        f"Batch {cells[0].batch} of {cells[0].length} tokens, {evidence.bundle.profile.launches} launches. Before it is timed "
        "each stack's loss and gradients equal the definition of its work. A ratio is to raw PyTorch doing the same work; "
        "what another method costs beside raw PyTorch's plain work stands in a column of its own and ranks nothing. "
        "The floor is the step's counted matrix products at the best matrix product measured in the same launch."
    )
    return Table(
        "training" if workload == "intent" else f"training-{workload}",
        f"One optimizer step of {_OF[workload]}",
        lead,
        ("Stack", "Its work", *titles(columns)),
        rows_of(evidence, numbers, cells, head_of, columns),
    )


def _held(cell: Cell, numbers: Numbers) -> set[str]:
    """The metrics that a cell has."""
    return {metric for identifier, metric in numbers if identifier == cell.id}


def phases(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """Where a step's time goes, of the stacks that tell; nothing where no launch told."""
    lead = (
        "Shares of the step, by hooks on teacher, student and optimizer; "
        "backward holds the loss and clipping, other the library's own loop."
    )
    cells = [
        cell
        for workload in get_args(Workload)
        for cell in _ordered(evidence, numbers, workload)
        if any((cell.id, name) in numbers for name in _PHASES)
    ]
    if not cells:
        return ()
    rows = rows_of(evidence, numbers, cells, lambda c: [name_of(c)], _PHASES)
    return (Table("phases", "Where a step's time goes", lead, ("Stack", *titles(_PHASES)), rows),)


def _groups(evidence: Evidence, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Stacks that may be ranked beside each other, by what their heading says."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        reference = reference_of(cell, evidence.bundle.planned)
        if reference is not None:
            alike = same_work(cell, reference)
            told = f"{name_of(reference).text}, the same work" if alike else "raw PyTorch's plain work, not ranked"
            found.setdefault(f"Beside {told}", []).append(cell)
    return found


def figures(evidence: Evidence, numbers: Numbers) -> tuple[Figure, ...]:
    """Step time of each stack in times of raw PyTorch's, a plot a workload."""
    return tuple(
        _figure(evidence, numbers, workload, cells)
        for workload in get_args(Workload)
        if (cells := _ordered(evidence, numbers, workload))
    )


def _times_of(value: float) -> str:
    return f"{value:g}×"  # noqa: RUF001 - a product


def _figure(evidence: Evidence, numbers: Numbers, workload: Workload, cells: Sequence[Cell]) -> Figure:
    rows: list[Row] = []
    for heading, members in _groups(evidence, cells).items():
        found = [
            row_of(name_of(cell).text, judged, ())
            for cell in members
            for metric in ("ratio", "method_ratio")
            if (judged := numbers.get((cell.id, metric)))
        ]
        rows += [Row(heading), *found] if found else []
    svg = plot(
        f"plot-training-{evidence.bundle.target}" + ("" if workload == "intent" else f"-{workload}"),
        f"Step time of each stack of {_OF[workload]}, relative to raw PyTorch's",
        rows,
        Axis("times the step of raw PyTorch, logarithmic", _times_of, log=True, lines=((1.0, "raw PyTorch"),)),
    )
    return Figure(
        svg,
        "A bar is the 95 % interval of the ratio over launches; the dashed line is raw PyTorch. Under its own heading stands "
        "other work, which ranks nothing: what a method costs.",
    )
