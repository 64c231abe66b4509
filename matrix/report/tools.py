"""The design note's table of tools, made from what the matrix itself runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from matrix.capabilities import TITLES, No, Sized, Yes, rows
from matrix.report.tables import Entry, Table
from matrix.units import DASH

_DEVICES: Final = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}


def _answer(answer: Yes | No) -> Entry:
    return Entry("yes", ", ".join(answer.by)) if isinstance(answer, Yes) else Entry("no", answer.no)


def _fit(by: tuple[str, ...]) -> str:
    """Devices that its rows run on."""
    found = {device for name in by for one in rows(name) for device in one.devices}
    return ", ".join(title for device, title in _DEVICES.items() if device in found)


def _row(sized: Sized) -> tuple[Entry, ...]:
    tool, lines = sized
    size = f"{median(lines.values()):.0f} lines" if lines else ""
    return (
        Entry(tool.name, tool.use),
        *(_answer(answer) for _, answer in tool.answers()),
        Entry(
            size or (DASH if tool.by else "not built"), f"the median of {len(lines)} modules" if len(lines) > 1 else ""
        ),
        Entry(_fit(tool.by) or "not built"),
        Entry(tool.released),
        Entry(tool.role),
    )


def table(tools: Sequence[Sized]) -> Table:
    """A row a tool. A yes names the rows of the matrix that do it, a no why not."""
    lead = (
        "Every yes is a row of this matrix: a stack whose loss and gradients the tests and each launch hold to the definition of "
        "its work, or an export or runtime that answers as the checkpoint does. Ease is counted, not judged: the lines of code of "
        "our own module for it, without comments and docstrings. Use and role are the design note's words (its section 2.2)."
    )
    head = ("Tool", *TITLES.values(), "Ease", "Runs on", "Pinned release", "The note's role for it")
    return Table("tools", "What each tool can do", lead, head, tuple(map(_row, tools)))
