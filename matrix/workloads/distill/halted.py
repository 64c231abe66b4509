"""A library's own training loop, halted between its steps: nothing of what a user of the library pays for is imitated.

It runs in a coroutine of this thread. Not in a thread of its own: that brings a second OpenMP pool, and with more managed
threads than cores libgomp spins a thousand turns and sleeps instead of spinning on; the same step then took 1.05 to 1.27
times as long (measured, two cores).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import greenlet

FOREVER: Final = 10**9
"""Steps that a halted loop is asked for: it never comes to its end."""


def halt() -> None:
    """Called by the loop between two steps: the one before is over; go back to whoever asked for it."""
    greenlet.getcurrent().parent.switch()


def halting(batches: Iterable[Any]) -> Iterator[Any]:
    """`batches`, halting before each is fetched: for a loop that has no hook of its own between steps."""
    source = iter(batches)
    while True:
        halt()
        yield next(source)


class Halted:
    """The loop `train`, which calls `halt` at the beginning of each step."""

    def __init__(self, train: Callable[[], Any]) -> None:
        self._loop = greenlet.greenlet(train)

    def start(self) -> None:
        """Let the loop run to the beginning of its first step, unless it has."""
        if not self._loop:
            self._loop.switch()

    def step(self) -> None:
        """Let the loop run to the beginning of its next step; what it raises is raised here."""
        self.start()
        self._loop.switch()

    def close(self) -> None:
        """Unwind the loop."""
        if self._loop:
            self._loop.throw()
