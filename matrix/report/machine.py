"""The report for machines: verdict, every judged number with its reasons, every estimate. JSON, sorted keys, no NaN."""

from __future__ import annotations

import json
import math
from typing import Any

from matrix.report.material import Material
from matrix.verdict import Judged


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(judged: Judged) -> dict[str, Any]:
    finding = judged.finding
    ends = ("value", "low", "high", "bound_low", "bound_high")
    same = (
        "target",
        "metric",
        "kind",
        "unit",
        "confidence",
        "launches",
        "samples",
        "workload_id",
        "bundle",
        "profile",
        "subject",
    )
    return {
        "cell": finding.cell.id,
        **{name: getattr(finding, name) for name in same},
        **{name: _finite(getattr(finding, name)) for name in ends},
        "notes": {key: _finite(value) for key, value in finding.notes.items()},
        "state": judged.state.model_dump(mode="json"),
    }


def render(material: Material) -> str:
    """The report as JSON text."""
    facts = {
        "made": material.case.today.now.isoformat(timespec="seconds"),
        "verdict": material.verdict.model_dump(mode="json"),
        "numbers": [_number(one) for one in material.judged],
        "estimates": [
            {
                **one.estimate.model_dump(mode="json"),
                "status": one.status,
                "why": one.why,
                "measured": _number(one.judged) if one.judged else None,
            }
            for one in material.estimates
        ],
    }
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n"
