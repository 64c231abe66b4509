"""The clock waits for the device inside the timed region, and knows when it is wrong."""

from __future__ import annotations

import pytest

from matrix.sample import ClockCheck
from matrix.workloads import clock
from tests.making import RIGHT_CLOCK


def test_on_the_cpu_nothing_is_added_to_a_call() -> None:
    """The same object: the harness costs nothing there."""

    def call() -> None:
        """Nothing."""

    assert clock.on_device(call, "cpu") is call


def test_on_a_device_the_region_ends_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call first, then the wait, both inside; arguments and result pass through."""
    told: list[str] = []
    monkeypatch.setattr(clock, "synchroniser", lambda _: lambda: told.append("idle"))

    def call(*, left: int, right: int) -> int:
        told.append("call")
        return left + right

    assert clock.on_device(call, "cuda")(left=1, right=2) == 3
    assert told == ["call", "idle"]


def test_works_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A, B, A, B: drift falls on both; each has the median of its own times."""
    now = [0.0]
    order: list[str] = []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def work(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    found = clock.interleaved([lambda: work("a", 1.0), lambda: work("b", 3.0)], 3)
    assert order == ["a", "b"] * 3
    assert found == [1.0, 3.0]


def test_the_clock_tests_itself_on_this_machine() -> None:
    """Real work: twice as much takes longer, and nothing takes less than a millisecond (loose: a test is not a benchmark)."""
    found = clock.check("cpu", rounds=5, seconds=5e-4)
    assert 0 <= found.empty_s < 1e-3
    assert found.doubling > 1.2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"empty_s": 2e-3}, "an empty region takes 2.00e-03 s"),
        ({"doubling": 1.0}, "twice the work takes 1.00 times as long"),
        ({"same": 1.3}, "the same work takes 1.30 times as long under another name"),
    ],
)
def test_a_wrong_clock_says_what_is_wrong(change: dict[str, float], told: str) -> None:
    """Each fault, with its number (one that is not a number is no ClockCheck)."""
    assert RIGHT_CLOCK.faults == ()
    assert ClockCheck(**(RIGHT_CLOCK.model_dump() | change)).faults == (told,)
