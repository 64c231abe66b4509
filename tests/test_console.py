"""Progress says where a run is, how well it is known so far, and how long it will still take."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from matrix import console
from matrix.console import Live, duration
from matrix.job import Event
from tests.making import EAGER, ORT, RAW


class Clock:
    """A clock that a test turns by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The console's clock."""
    hand = Clock()
    monkeypatch.setattr(console, "time", hand)
    return hand


def test_a_duration_is_written_as_people_wait() -> None:
    """Seconds up to a minute and a half."""
    assert [duration(48.4), duration(190), duration(-1)] == ["48 s", "3 min 10 s", "0 s"]


def test_training_tells_the_time_left_in_its_step(clock: Clock) -> None:
    """10 of 40 steps in 30 s: 90 s are left."""
    out = io.StringIO()
    live = Live(Console(file=out))
    live.event(Event(stage="train the teacher", done=0, total=40))
    clock.now += 30
    live.event(Event(stage="train the teacher", done=10, total=40))
    assert out.getvalue().splitlines()[-1] == "train the teacher, step 10 of 40; about 1 min 30 s left in this step"


def test_a_launch_tells_samples_width_and_the_time_left_of_all(clock: Clock) -> None:
    """The training cell (cost 4) took 8 s; two latency cells (1.3 each) and a second launch (6.6) are ahead."""
    out = io.StringIO()
    live = Live(Console(file=out))
    live.expect([[RAW, EAGER, ORT], [RAW, EAGER, ORT]])
    live.launch(1)
    live.event(Event(stage="cell", detail=RAW.id, done=1, total=3))
    clock.now += 8
    live.event(Event(stage="cell", detail=EAGER.id, done=2, total=3))
    clock.now += 11
    live.event(Event(stage="look", detail=EAGER.id, samples=30, width=0.012))
    last = out.getvalue().splitlines()[-1]
    assert last == f"launch 1, cell 2 of 3: {EAGER.id}, 30 samples, median ±1.2 %; about 44 s left"
