"""An operator that ran on the CPU instead takes a launch its times, and makes its other numbers doubtful."""

from __future__ import annotations

from typing import Any

import pytest

from matrix.health import EVERY, TIMED, doubts_of
from matrix.sample import Battery, Canary, Environment, fallback_in
from matrix.verdict import Doubt
from tests.making import EAGER, evidence

FELL = "The operator 'aten::x' is not currently supported on the MPS backend and will fall back to run on the CPU."
ASKED = Battery(device="mps", canaries=(Canary(name="argmax", error=0.0, limit=0.0),))


def doubts(**told: Any) -> list[Doubt]:  # noqa: ANN401 - fields of LaunchRecord
    """The doubts about a quiet launch that told these besides."""
    one = evidence(samples={EAGER: [[1.0]]})
    return doubts_of(one.measured[EAGER.id, 1], one.bundle.launches[0].model_copy(update=told))


def software(value: str) -> Environment:
    """An environment in which the fallback is switched so."""
    variables = {"PYTORCH_ENABLE_MPS_FALLBACK": value}
    return Environment(python="3.11", system="Darwin", packages={}, packages_sha256="p", variables=variables)


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ({"fallbacks": (FELL,)}, FELL),
        ({"battery": ASKED.model_copy(update={"fallbacks": (FELL,)})}, FELL),
        ({"environment": software("1")}, "PYTORCH_ENABLE_MPS_FALLBACK=1"),
        ({"fallbacks": (FELL,), "environment": software("1")}, f"{FELL} and 1 more"),
    ],
)
def test_a_fallback_leaves_no_time_and_degrades_the_rest(told: dict[str, Any], number: str) -> None:
    """In a cell, in the battery, or allowed to: fatal for times, throughputs and ratios, a doubt about all else."""
    fatal, mild = doubts(**told)
    assert (fatal.kinds, fatal.fatal) == (TIMED, True)
    assert (mild.kinds, mild.fatal) == (EVERY - TIMED, False)
    assert fatal.reason == mild.reason
    assert str(fatal.reason) == (
        f"mps_fallback: {number} (every operator runs on the device); "
        "unset PYTORCH_ENABLE_MPS_FALLBACK; what then raises is not built for MPS"
    )


def test_without_a_fallback_there_is_no_doubt() -> None:
    """A battery that heard none, a variable that is off, and a launch that told nothing."""
    assert doubts(battery=ASKED, environment=software("0")) == []
    assert doubts(environment=None) == []


def test_a_fallback_is_told_from_other_warnings() -> None:
    """Torch's own line is kept, without that of its source."""
    assert fallback_in(f"{FELL} (Triggered internally at MPSFallback.mm:15.)") == FELL
    assert fallback_in("something else") is None


def test_an_answer_is_right_up_to_its_limit() -> None:
    """One that raised, or is not a number, has no error and has not passed."""
    limits = [Canary(name="x", error=error, limit=0.5).passed for error in (0.0, 0.5, 0.51, None)]
    assert limits == [True, True, False, False]
