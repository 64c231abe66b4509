"""Shows a run to whoever waits: a live line on a terminal, a line now and then in a log. Says how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from matrix.cell import Cell
from matrix.job import Event

_LOG_EVERY_S: Final = 10.0
_COST: Final = {
    "training_step": 4.0,
    "training_quality": 40.0,
    "export_accuracy": 6.0,
    "quantization_schemes": 40.0,
    "response_quality": 10.0,
    "inference_latency": 1.3,
    "generation": 10.0,
    "concurrent_load": 2.0,
    "packaging": 1.0,
}
"""How long a cell takes beside another (seconds, profile quick, two cores): only the time left is guessed from it."""


def duration(seconds: float) -> str:
    """Seconds as people wait them: '48 s', '3 min 10 s'."""
    whole = round(max(seconds, 0.0))
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"  # noqa: PLR2004 - a minute and a half


def cost(cells: Sequence[Cell]) -> float:
    """What the cells cost together, in the units of `_COST`."""
    return sum(_COST[cell.suite] for cell in cells)


class Live:
    """A `run.Watcher` on a rich console; also a context manager, for the live line must be put away."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._launches: list[Sequence[Cell]] = []
        self._index = 0
        self._stage, self._began, self._logged = "", time.monotonic(), 0.0
        self._done = self._total = self._ahead = self._spent_cost = 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("start", total=None, left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def expect(self, launches: Sequence[Sequence[Cell]]) -> None:
        """The cells of every launch that is to come."""
        self._launches = list(launches)
        self._ahead = sum(cost(cells) for cells in launches)

    def launch(self, index: int) -> None:
        """The next expected launch begins; it is called `index`."""
        if not self._index:
            self._began = time.monotonic()  # from here on the time left is told from what launches took
        self._index, self._cells = index, self._launches.pop(0)
        self.say(f"launch {index}: {len(self._cells)} cells, {len(self._launches)} launches after it")

    def _left(self) -> str:
        """Time left: of all launches once one runs; before that, of this step."""
        spent = time.monotonic() - self._began
        if self._index:
            return f"about {duration(spent / self._spent_cost * self._ahead)} left" if self._spent_cost else ""
        return (
            f"about {duration(spent / self._done * (self._total - self._done))} left in this step" if self._done else ""
        )

    def _advance(self, event: Event) -> None:
        """Take note of what is done and what is ahead."""
        if event.stage == "cell" and event.done:
            if event.done > 1:
                before = _COST[self._cells[event.done - 2].suite]
                self._spent_cost, self._ahead = self._spent_cost + before, self._ahead - before
        elif event.stage not in {"look", "measure"} and event.stage != self._stage:
            self._stage, self._began, self._done, self._total = event.stage, time.monotonic(), 0.0, 0.0
        if event.done is not None and event.total is not None:
            self._done, self._total = float(event.done - (event.stage == "cell")), float(event.total)

    def event(self, event: Event) -> None:
        """Progress inside the preparation or a launch."""
        self._advance(event)
        text, left = self._text(event), self._left()
        self._progress.update(self._task, description=text, completed=self._done, total=self._total or None, left=left)
        if not self.console.is_terminal and time.monotonic() - self._logged >= _LOG_EVERY_S:
            self._logged = time.monotonic()
            self.say("; ".join(part for part in (text, left) if part))

    def _text(self, event: Event) -> str:
        """`launch 2, cell 7 of 27: ..., 120 samples, median ±1.2 %`."""
        where = f"launch {self._index}, cell" if self._index else f"{event.stage}, step"
        number = f" {min(self._done + bool(self._index), self._total):.0f} of {self._total:.0f}" if self._total else ""
        head = (where + number if number else event.stage) + (f": {event.detail}" if event.detail else "")
        samples = f"{event.samples} samples" if event.samples else ""
        width = f"median ±{100 * event.width:.1f} %" if event.width is not None else ""
        return ", ".join(part for part in (head, samples, width) if part)
