"""Shows a run to whoever waits: a live line on a terminal, a line now and then in a log. Says how long it will still take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from matrix.job import Event

_LOG_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """Seconds as people wait them: '48 s', '3 min 10 s'."""
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"  # noqa: PLR2004 - a minute and a half


@dataclass
class _Stage:
    """The part of the run that is under way."""

    title: str = "prepare"
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0


class Live:
    """A `run.Watcher` on a rich console; also a context manager, for the live line must be put away."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stage, self.index, self.launches = _Stage(), 0, 0
        self._spent: list[float] = []
        self._logged = 0.0
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
        self._progress.console.print(text, highlight=False, markup=False)

    def launch(self, index: int, total: int) -> None:
        """A launch begins; the time that the one before took is what is left for each one to come."""
        if self.index:
            self._spent.append(time.monotonic() - self.stage.began)
        self.index, self.launches = index, total
        self.stage = _Stage(f"launch {index} of {total}")
        self.say(f"launch {index} of {total}")

    def _left(self) -> str:
        """Time left in the run, once a launch has told how long one takes; before that, in this stage."""
        spent, stage = time.monotonic() - self.stage.began, self.stage
        if self._spent:
            mean = sum(self._spent[1:] or self._spent) / len(
                self._spent[1:] or self._spent
            )  # the first also judges quality
            return f"about {duration(max(mean - spent, 0.0) + mean * (self.launches - self.index))} left"
        if not stage.done:
            return ""
        whole = spent / stage.done * stage.total
        if not self.index:
            return f"about {duration(whole - spent)} left in this step"
        return f"about {duration(whole - spent + whole * (self.launches - self.index))} left"

    def event(self, event: Event) -> None:
        """Progress inside the preparation or a launch."""
        if event.stage not in {"cell", "look", "measure"} and event.stage != self.stage.title:
            self.stage = _Stage(event.stage)
        if event.done is not None and event.total is not None:
            self.stage.done, self.stage.total = event.done - (event.stage == "cell"), event.total
        text = self._text(event)
        self._progress.update(
            self._task, description=text, completed=self.stage.done, total=self.stage.total or None, left=self._left()
        )
        if not self.console.is_terminal and time.monotonic() - self._logged >= _LOG_EVERY_S:
            self._logged = time.monotonic()
            self.say("  ".join(part for part in (text, self._left()) if part))

    def _text(self, event: Event) -> str:
        """`launch 2 of 5, cell 7 of 27: … , 120 samples, median ±1.2 %`."""
        parts = [self.stage.title]
        if self.stage.total:
            number = min(self.stage.done + bool(self.index), self.stage.total)
            parts.append(f"{'cell' if self.index else 'step'} {number} of {self.stage.total}")
        head = ", ".join(parts) + (f": {event.detail}" if event.detail else "")
        samples = f"{event.samples} samples" if event.samples else ""
        width = f"median ±{100 * event.width:.1f} %" if event.width is not None else ""
        return ", ".join(part for part in (head, samples, width) if part)
