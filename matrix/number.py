"""A number before it is dressed as a finding: of several launches, and the variant that it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matrix import stats
from matrix.catalog import METRICS, REFERENCES, WORK_REFERENCES, variant
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


def _reference(cell: Cell) -> str | None:
    """The name of the variant that `cell` is compared with; a bundle may be older than the catalog, and know other variants."""
    general = REFERENCES.get((cell.suite, cell.workload))
    if cell.suite == "training_quality":  # whatever its loss, a student is judged on the same examples
        return general
    try:
        own = WORK_REFERENCES.get(variant(cell.suite, cell.variant).work)
    except KeyError:
        return general
    return general if own in (None, cell.variant) else own


def reference_of(cell: Cell, planned: Sequence[Cell]) -> Cell | None:
    """The planned cell that `cell` is compared with: the reference variant, same parameters (batch aside for quality)."""
    name = _reference(cell)
    if name is None:
        return None
    key = cell.model_copy(update={"variant": name} | ({"batch": None} if cell.suite == "export_accuracy" else {}))
    for other in planned:
        if other == key or (cell.suite == "export_accuracy" and other.model_copy(update={"batch": None}) == key):
            return other
    return None


def same_work(cell: Cell, reference: Cell) -> bool:
    """Whether the two do the same work, so that a ratio of their times ranks them."""
    try:
        return variant(cell.suite, cell.variant).work == variant(reference.suite, reference.variant).work
    except KeyError:
        return True


def over_launches(metric: str, values: Sequence[float], samples: int) -> Number:
    """A number that each launch says once; its bounds are the extreme launches."""
    interval = stats.geometric_interval(values) or stats.mean_interval(values)
    # the same bytes, the same count: exact, unless it is one launch's time
    if len(set(values)) == 1 and (len(values) > 1 or METRICS[metric].kind == "static"):
        interval = stats.Interval(values[0], values[0], values[0])
    value = interval.value if interval else values[0] if len(values) == 1 else math.nan
    confidence = stats.median_launch_confidence(len(values))
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Number(metric, value, low, high, min(values), max(values), confidence, samples, {})
