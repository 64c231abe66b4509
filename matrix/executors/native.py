"""Runs a target's processes on this host, with this interpreter and no image: isolation is a fresh process and its threads.

What it cannot promise (limits, a locked image) the bundle says: its executor is `native`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from matrix.job import EVENTS, End, Event, Order, Watch
from matrix.strict import parse_json

_POLL_S = 0.1
_NEEDED = ("torch", "transformers", "onnxruntime", "optimum")


def missing() -> str | None:
    """The frameworks that this environment lacks, as what the target needs."""
    absent = [name for name in _NEEDED if find_spec(name) is None]
    return (
        f"needs {', '.join(absent)} in this Python (install the target's extra, or use its tox environment)"
        if absent
        else None
    )


class _Follower:
    """Reads new whole lines of the process' event file."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def new(self) -> Iterator[Event]:
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # half a line: the process is still writing it
                self.offset += len(line)
                yield parse_json(Event, line, str(self.path))


@contextmanager
def _started(order: Order) -> Iterator[subprocess.Popen[bytes]]:
    """The process in a group of its own, which does not outlive this block."""
    with (order.folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules, by this interpreter
            [sys.executable, *order.arguments],
            env={**os.environ, **order.variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def execute(order: Order, watch: Watch) -> End:
    """Run the process to its end or its time limit, passing its events on as they come."""
    follower, started = _Follower(order.folder / EVENTS), time.monotonic()
    with _started(order) as process:
        while process.poll() is None:
            for event in follower.new():
                watch(event)
            if time.monotonic() - started > order.timeout_s:
                return End(exit_code=124, timed_out=True, seconds=time.monotonic() - started)
            time.sleep(_POLL_S)
        for event in follower.new():
            watch(event)
    return End(exit_code=process.returncode, timed_out=False, seconds=time.monotonic() - started)
