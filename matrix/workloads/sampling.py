"""Sampling one cell: warm up until steady, look until the interval is narrow, then confirm with a fixed block.

Looking at an interval until it is narrow biases it (a lucky streak stops early), so the samples that were looked at are
thrown away: only the confirming block, whose length was fixed before it began, becomes the claim. It is one
`benchmark.pedantic` call, so pytest-benchmark's JSON holds exactly the claimed samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Protocol

from matrix.job import Event
from matrix.profile import Sampling
from matrix.ranks import median_half_width
from matrix.sample import Timing

_BATCH = 3
_TELL_EVERY_S = 0.2

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Pedantic(Protocol):
    """The part of pytest-benchmark's fixture that is used."""

    def pedantic(
        self, target: Callable[..., Any], *, setup: Callable[[], Arguments], rounds: int, iterations: int
    ) -> Any:  # noqa: ANN401
        """Time `rounds` calls of `target`, each after an untimed `setup`."""


Inputs = Callable[[], Iterator[Arguments]]
"""Begins the calls' arguments anew, each made outside the clock: what is compared was called with the same ones."""


class Sampler:
    """Samples `call` under `rules`, each block with the same `inputs` from their beginning; `tell` shows progress."""

    def __init__(
        self,
        call: Callable[..., Any],
        inputs: Inputs,
        rules: Sampling,
        tell: Callable[[Event], None],
        name: str,
    ) -> None:
        self.call, self.inputs, self.rules, self.tell, self.name = call, inputs, rules, tell, name

    def _once(self, inputs: Iterator[Arguments]) -> float:
        args, kwargs = next(inputs)
        start = time.perf_counter()
        self.call(*args, **kwargs)
        return time.perf_counter() - start

    def _block(self, size: int) -> float:
        """Median of a block's times."""
        inputs = self.inputs()
        return median(self._once(inputs) for _ in range(size))

    def warm_up(self) -> tuple[int, bool]:
        """Call in blocks until two neighbouring blocks' medians agree within `steady`; the calls made and whether they did."""
        size = self.rules.warmup_calls
        if size == 0:
            return 0, True
        deadline = time.monotonic() + self.rules.warmup_cap_s
        before, calls = self._block(size), size
        while time.monotonic() < deadline:
            after = self._block(size)
            calls += size
            if abs(after / before - 1) <= self.rules.steady:
                return calls, True
            before = after
        return calls, False

    def look(self) -> tuple[list[float], bool]:
        """Sample until the median's interval is as narrow as asked; the samples and whether the cap came first."""
        found: list[float] = []
        deadline, inputs = time.monotonic() + self.rules.cap_s, self.inputs()
        while True:
            found += [self._once(inputs) for _ in range(_BATCH)]
            width = median_half_width(found)
            self.tell(Event(stage="look", detail=self.name, samples=len(found), width=width))
            if width is not None and width <= self.rules.width:
                return found, False
            if time.monotonic() > deadline or len(found) >= self.rules.max_rounds:
                return found, True

    def rounds_after(self, looked: list[float]) -> int:
        """Rounds of the confirming block: as many as looking took, filled up to what the cap has time for."""
        affordable = int(self.rules.cap_s / max(median(looked), 1e-9))
        return min(self.rules.max_rounds, max(self.rules.min_rounds, len(looked), affordable))

    def confirm(self, benchmark: Pedantic, rounds: int) -> None:
        """The claim: `rounds` timed calls. Progress is told from `setup`, outside the clock."""
        state, inputs = {"done": 0, "next": 0.0}, self.inputs()

        def setup() -> Arguments:
            now = time.monotonic()
            if now >= state["next"]:
                state["next"] = now + _TELL_EVERY_S
                self.tell(Event(stage="measure", detail=self.name, samples=int(state["done"]), total=rounds))
            state["done"] += 1
            return next(inputs)

        benchmark.pedantic(self.call, setup=setup, rounds=rounds, iterations=1)

    def run(self, benchmark: Pedantic, samples: Callable[[], list[float]]) -> Timing:
        """Warm up, look, confirm; how it went. `samples` reads the confirming block's times back from the fixture."""
        calls, steady = self.warm_up()
        fixed = self.rules.min_rounds == self.rules.max_rounds  # nothing to look for
        looked, capped = ([], False) if fixed else self.look()
        rounds = self.rounds_after(looked) if looked else self.rules.min_rounds
        self.confirm(benchmark, rounds)
        width = median_half_width(samples())
        return Timing(
            warmup_calls=calls,
            steady=steady,
            adaptive_calls=len(looked),
            capped=capped,
            rounds=rounds,
            asked_width=self.rules.width,
            doubt_width=self.rules.doubt_width,
            width=width,
        )
