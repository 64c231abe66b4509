"""Runs a job as a process of this host, by this interpreter: what a native launch is, and the client of an emulated one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from matrix import definitions
from matrix.job import EVENTS, End, Event, Folders, Order, Watch
from matrix.orphans import die_with
from matrix.strict import parse_json

_POLL_S = 0.1


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


def inherited() -> dict[str, str]:
    """What a launch inherits of this process' environment.

    What is told to a pytest around it (PYTEST_ADDOPTS, a worker of pytest-xdist) is none of the suites' business: in such a
    worker's children pytest-benchmark 5.3 measures nothing.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@contextmanager
def _started(arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process in a group of its own, which does not outlive this block."""
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules, by this interpreter; one system call before it
            [sys.executable, *arguments],
            env={**inherited(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 - one system call, its library loaded before
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def call(
    arguments: Sequence[str], folder: Path, watch: Watch, *, variables: Mapping[str, str], timeout_s: float
) -> End:
    """Run Python with `arguments` to its end or its time limit, passing on the events that it writes into `folder`."""
    follower, started = _Follower(folder / EVENTS), time.monotonic()
    with _started(arguments, folder, variables) as process:
        while process.poll() is None:
            for event in follower.new():
                watch(event)
            if time.monotonic() - started > timeout_s:
                return End(exit_code=124, timed_out=True, seconds=time.monotonic() - started)
            time.sleep(_POLL_S)
        for event in follower.new():
            watch(event)
    return End(exit_code=process.returncode, timed_out=False, seconds=time.monotonic() - started)


def run(order: Order, watch: Watch) -> End:
    """Run the order's process to its end or its time limit, passing its events on as they come."""
    folders = Folders(cache=str(order.cache.resolve()), out=str(order.folder.resolve()))
    job, file = order.job.model_copy(update={"folders": folders}), order.folder.resolve() / "job.json"
    file.write_text(job.model_dump_json(), encoding="utf-8")
    arguments = job.command(str(definitions.suites()), str(file))
    return call(arguments, order.folder, watch, variables=order.variables, timeout_s=order.timeout_s)
