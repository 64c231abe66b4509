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
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from matrix import definitions, host
from matrix.job import EVENTS, End, Event, Folders, Order, Watch
from matrix.orphans import die_with
from matrix.sample import Confinement
from matrix.strict import parse_json
from matrix.target import Target

_POLL_S = 0.1
_NEEDED: Final = {
    "cpu": ("torch", "transformers", "onnxruntime", "optimum", "openvino", "nncf"),
    "cuda": ("torch", "transformers", "accelerate"),
    "mps": ("torch", "transformers", "accelerate"),
}


def missing(target: Target) -> str | None:  # noqa: ARG001 - this way asks nothing of a host but what the target expects
    """A host that the target expects can always start a process."""
    return None


def unready(target: Target) -> str | None:
    """What this environment lacks: packages, or a torch that can use the target's device."""
    return _lacking(target.device)


def cores(target: Target) -> int:  # noqa: ARG001 - a process takes all that this one may
    """Cores that this process may use."""
    return host.usable_cores()


def asked(target: Target) -> Confinement | None:  # noqa: ARG001 - no limit is asked for
    """Nothing confines a process of this host."""
    return None


@cache
def _lacking(device: str) -> str | None:
    absent = [name for name in _NEEDED[device] if find_spec(name) is None]
    if absent:
        return f"needs {', '.join(absent)} in this Python (install the target's extra, or use its tox environment)"
    if device == "cpu":
        return None
    asks = f"import sys, torch; sys.exit(not torch.{'cuda' if device == 'cuda' else 'backends.mps'}.is_available())"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, check=False)  # noqa: S603 - our own line
    return (
        f"needs a torch that can use {device} (this one cannot: its build or the driver)" if done.returncode else None
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
    folders = Folders(cache=str(order.cache.resolve()), out=str(order.folder.resolve()))
    job, file = order.job.model_copy(update={"folders": folders}), order.folder.resolve() / "job.json"
    file.write_text(job.model_dump_json(), encoding="utf-8")
    with (order.folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules, by this interpreter; one system call before it
            [sys.executable, *job.command(str(definitions.suites()), str(file))],
            env={**os.environ, **order.variables},
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
