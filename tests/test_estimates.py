"""An estimate stands beside a measurement and never in its place."""

from __future__ import annotations

import pytest

from matrix.catalog import METRICS, variant
from matrix.estimates import Estimate, Place, compare
from matrix.trust import judge
from tests.making import ORT, estimates, evidence, ledger_of, rules, targets

PLACE = Place(
    target="cpu-openvino", suite="inference_latency", variant="ort_int8", metric="p50_s", mode="warm", length=16
)
MEASURED = evidence(samples={ORT: [[0.010] * 60] * 5})
JUDGED = judge([MEASURED], ledger_of([MEASURED]), rules())


def planned(low: float, high: float, **changes: object) -> Estimate:
    """An estimate of the ORT latency."""
    fields = {"what": "x", "section": "C3", "low": low, "high": high, "unit": "s", "assumption": "y", "place": PLACE}
    return Estimate.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("low", "high", "status", "why"),
    [
        (0.008, 0.012, "hit", "the interval and the range overlap"),
        (0.020, 0.040, "miss", "2.00 times below the range"),
        (0.002, 0.004, "miss", "2.50 times above the range"),
    ],
)
def test_a_range_is_hit_or_missed_by_a_factor(low: float, high: float, status: str, why: str) -> None:
    """10 ms measured against three ranges."""
    found = compare(planned(low, high), JUDGED)
    assert (found.status, found.why) == (status, why)


def test_other_parameters_are_not_comparable_and_say_which() -> None:
    """Measured at 16 tokens, assumed at 128."""
    found = compare(planned(0.01, 0.02, place=PLACE.model_copy(update={"length": 128})), JUDGED)
    assert (found.status, found.why) == ("not comparable", "measured at length 16, not 128")


def test_another_data_set_is_not_comparable_even_at_the_same_place() -> None:
    """The estimate itself says why."""
    assert compare(planned(0.01, 0.02, incomparable="other data"), JUDGED).why == "other data"


def test_what_no_bundle_holds_is_not_measured() -> None:
    """Never an estimate in a measurement's place."""
    found = compare(planned(0.01, 0.02, place=PLACE.model_copy(update={"target": "cuda-a100"})), JUDGED)
    assert (found.status, found.judged) == ("not measured", None)


def test_every_estimate_of_the_project_names_a_cell_that_exists_or_says_why_not() -> None:
    """Targets, variants, metrics and units of estimates.toml are the matrix's own."""
    for estimate in estimates().estimate:
        place = estimate.place
        if place is None:
            assert estimate.incomparable
            continue
        targets().of(place.target)
        assert variant(place.suite, place.variant).workload == place.workload
        assert METRICS[place.metric].unit == estimate.unit
        assert estimate.low <= estimate.high
