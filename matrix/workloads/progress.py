"""Progress of a process in an image: one JSON line an event, in a file that the host follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from matrix.job import EVENTS, Event

Tell = Callable[[Event], None]


def teller(folder: Path, *, every_s: float = 0.2) -> Tell:
    """A function that appends events to `folder`, at most one each `every_s` seconds for the same stage and detail."""
    path, last = folder / EVENTS, {"key": ("", ""), "at": 0.0}

    def tell(event: Event) -> None:
        now, key = time.monotonic(), (event.stage, event.detail)
        finished = event.done is not None and event.done == event.total
        if key == last["key"] and now - float(str(last["at"])) < every_s and not finished:
            return
        last.update(key=key, at=now)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(event.model_dump_json(exclude_none=True) + "\n")

    return tell
