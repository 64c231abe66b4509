"""Progress of a process in an image: one JSON line an event, in a file or on a descriptor that the host follows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from matrix.job import EVENTS, EVENTS_DESCRIPTOR, Event

Tell = Callable[[Event], None]


def teller(folder: Path, *, every_s: float = 0.2) -> Tell:
    """A function that tells events, at most one each `every_s` seconds for the same stage and detail.

    They are appended to a file in `folder`, unless the process was given a descriptor for them (matrix.supervised).
    """
    given = os.environ.get(EVENTS_DESCRIPTOR)
    path, last = folder / EVENTS, {"key": ("", ""), "at": 0.0}

    def tell(event: Event) -> None:
        now, key = time.monotonic(), (event.stage, event.detail)
        finished = event.done is not None and event.done == event.total
        if key == last["key"] and now - float(str(last["at"])) < every_s and not finished:
            return
        last.update(key=key, at=now)
        line = (event.model_dump_json(exclude_none=True) + "\n").encode()
        if given:
            os.write(int(given), line)
            return
        with path.open("ab") as stream:
            stream.write(line)

    return tell
