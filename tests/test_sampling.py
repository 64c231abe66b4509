"""Warm up until steady, look until narrow, then confirm with a block whose length was fixed before it began."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from matrix.job import Event
from matrix.profile import Sampling
from matrix.workloads import sampling
from matrix.workloads.sampling import Arguments, Sampler

RULES = Sampling(
    min_rounds=20,
    max_rounds=100,
    cap_s=1.0,
    width=0.02,
    doubt_width=0.05,
    warmup_calls=4,
    warmup_cap_s=1.0,
    steady=0.05,
)


class World:
    """A clock that only moves when the sampled call says how long it took."""

    def __init__(self, durations: Callable[[int], float]) -> None:
        self.now, self.calls, self.durations = 0.0, 0, durations

    def call(self) -> None:
        """One call."""
        self.now += self.durations(self.calls)
        self.calls += 1

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now

    monotonic = perf_counter


class Benchmark:
    """The part of pytest-benchmark's fixture that is used: keeps the samples of its one block."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.samples: list[float] = []

    def pedantic(
        self, target: Callable[..., Any], *, setup: Callable[[], Arguments], rounds: int, iterations: int
    ) -> None:
        """Time the rounds."""
        assert iterations == 1
        for _ in range(rounds):
            args, kwargs = setup()
            start = self.world.now
            target(*args, **kwargs)
            self.samples.append(self.world.now - start)


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[int], float]], tuple[Sampler, Benchmark, list[Event]]]:
    """A sampler in a world whose calls take what a test says."""

    def make(durations: Callable[[int], float]) -> tuple[Sampler, Benchmark, list[Event]]:
        made, told = World(durations), list[Event]()
        monkeypatch.setattr(sampling, "time", made)
        return Sampler(made.call, lambda: itertools.repeat(((), {})), RULES, told.append, "cell"), Benchmark(made), told

    return make


def test_a_steady_call_is_claimed_from_the_confirming_block_alone(world: Any) -> None:  # noqa: ANN401
    """10 ms calls: warm after two blocks, narrow after six looks, and the cap has time for 100 rounds."""
    sampler, benchmark, _ = world(lambda _: 0.010)
    timing = sampler.run(benchmark, lambda: benchmark.samples)
    assert (timing.warmup_calls, timing.steady, timing.adaptive_calls, timing.capped) == (8, True, 6, False)
    assert timing.rounds == len(benchmark.samples) == 100
    assert timing.width == pytest.approx(0.0, abs=1e-12)


def test_warming_goes_on_until_two_blocks_agree(world: Any) -> None:  # noqa: ANN401
    """Each block of four is faster than the one before, until the fourth."""
    sampler, _, _ = world(lambda call: (0.04, 0.02, 0.01)[call // 4] if call < 12 else 0.01)
    assert sampler.warm_up() == (16, True)


def test_a_call_that_never_settles_says_so(world: Any) -> None:  # noqa: ANN401
    """Blocks that go on growing end at the cap, unsteady."""
    sampler, _, _ = world(lambda call: 0.01 * 1.5 ** (call // 4))
    calls, steady = sampler.warm_up()
    assert not steady
    assert calls >= 8


def test_a_noisy_call_is_capped_and_its_width_is_the_claims_own(world: Any) -> None:  # noqa: ANN401
    """Alternating 10 and 20 ms never narrow: looking ends at the cap, and the claim's width is far beyond the doubt."""
    sampler, benchmark, _ = world(lambda call: 0.010 if call % 2 else 0.020)
    timing = sampler.run(benchmark, lambda: benchmark.samples)
    assert timing.capped
    assert timing.width is not None
    assert timing.width > RULES.doubt_width


def test_slow_calls_keep_the_least_rounds(world: Any) -> None:  # noqa: ANN401
    """One second each: the cap has time for one, the statistics need twenty."""
    sampler, benchmark, _ = world(lambda _: 1.0)
    assert sampler.run(benchmark, lambda: benchmark.samples).rounds == RULES.min_rounds


def test_progress_tells_samples_and_width(world: Any) -> None:  # noqa: ANN401
    """While looking: how many and how wide; while confirming: how many of how many."""
    sampler, benchmark, told = world(lambda _: 0.010)
    sampler.run(benchmark, lambda: benchmark.samples)
    looks = [event for event in told if event.stage == "look"]
    assert [event.samples for event in looks] == [3, 6]
    assert looks[-1].width == pytest.approx(0.0, abs=1e-12)
    measures = [event for event in told if event.stage == "measure"]
    assert {event.total for event in measures} == {100}


def test_every_block_is_called_with_the_same_arguments_from_their_beginning(world: Any) -> None:  # noqa: ANN401
    """Blocks of examples of different lengths would differ by their lengths, and two runtimes by their rounds."""
    sampler, benchmark, _ = world(lambda _: 0.010)
    given: list[int] = []
    plain = sampler.call

    def call(number: int) -> None:
        given.append(number)
        plain()

    def inputs() -> Iterator[Arguments]:
        return (((number,), {}) for number in itertools.count())

    sampler.call, sampler.inputs = call, inputs
    timing = sampler.run(benchmark, lambda: benchmark.samples)
    assert given == [*range(4), *range(4), *range(timing.adaptive_calls), *range(timing.rounds)]
