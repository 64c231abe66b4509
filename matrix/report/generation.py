"""How fast files of the response student read and write, and what a kept prefix saves."""

from __future__ import annotations

from typing import Final

from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, plot
from matrix.report.tables import Numbers, Table, name_of, number
from matrix.units import show

SUITE: Final = "generation"
_COLUMNS: Final = (
    ("prefill", "prefill_per_s", "reads, tokens/s"),
    ("prefill", "first_token_s", "first token"),
    ("prefix", "first_token_s", "first token behind a kept prefix"),
    ("decode", "decode_per_s", "writes, tokens/s"),
    ("decode", "ratio", "writing, time against f16"),
    ("prefill", "load_s", "load"),
    ("prefill", "artifact_bytes", "artifact"),
)
"""Mode of the cell, metric, and head of each column."""


def _cells(evidence: Evidence) -> dict[str, dict[str, Cell]]:
    """The cells by variant and mode."""
    found: dict[str, dict[str, Cell]] = {}
    for cell in cells_of(evidence, SUITE):
        found.setdefault(cell.variant, {})[cell.mode or ""] = cell
    return found


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """A row a file."""
    language = evidence.bundle.profile.language
    lead = (
        f"llama.cpp, one sequence, as llama-bench counts: a prompt of {language.prompt} tokens is read from nothing, "
        f"{language.answer} tokens are written one by one behind a single one; behind a kept prefix the first {language.shared} "
        "tokens of the prompt are not computed again. Intervals are over launches; the ratio is taken within each."
    )
    rows = tuple(
        (
            name_of(next(iter(modes.values()))),
            *(number(numbers.get((modes[mode].id, metric)) if mode in modes else None) for mode, metric, _ in _COLUMNS),
        )
        for modes in _cells(evidence).values()
    )
    return (Table("generation", "Reading and writing", lead, ("File", *(head for _, _, head in _COLUMNS)), rows),)


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """How fast each file writes."""
    found = [
        (name_of(modes["decode"]).text, modes["decode"].id) for modes in _cells(evidence).values() if "decode" in modes
    ]
    rows = [row_of(name, judged, ()) for name, cell in found if (judged := numbers.get((cell, "decode_per_s")))]
    axis = Axis("tokens written a second", lambda value: show(value, "per_s"))
    svg = plot(
        f"plot-generation-{evidence.bundle.target}", "Tokens a second of each file, with its interval", rows, axis
    )
    return Figure(svg, "The bar is the 95 % interval over launches.")
