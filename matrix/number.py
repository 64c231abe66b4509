"""A number before it is dressed as a finding, and the variant that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matrix.catalog import REFERENCES
from matrix.cell import Cell

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Number:
    """A metric before it is dressed as a finding. `launches` where fewer launches say it than measured the cell (pairs)."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    bound_low: float | None
    bound_high: float | None
    confidence: float
    samples: int
    notes: Mapping[str, float]
    launches: int | None = None


def reference_of(cell: Cell, planned: Sequence[Cell]) -> Cell | None:
    """The planned cell that `cell` is compared with: the suite's reference variant, same parameters (batch aside for quality)."""
    if cell.suite not in REFERENCES:
        return None
    wanted = {"variant": REFERENCES[cell.suite]} | ({"batch": None} if cell.suite == "export_accuracy" else {})
    key = cell.model_copy(update=wanted)
    for other in planned:
        if other == key or (cell.suite == "export_accuracy" and other.model_copy(update={"batch": None}) == key):
            return other
    return None
